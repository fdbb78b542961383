//! The rows of the table.

use super::client::{http, lines, memcached, network, postgres, redis, ssh};
use super::{Program, Row};
use Program::{Line, Object, Server};

const fn row(
    name: &'static str,
    program: Program,
    client: fn(&super::Place) -> super::Finish,
) -> Row {
    Row { name, program, client }
}

const fn object(name: &'static str, kind: &'static str, argument: &'static str) -> Row {
    row(name, Object(kind, argument), lines::checks_itself)
}

const NGINX: &str = "exec nginx -g 'daemon off;'";
const REDIS: &str = "exec setpriv --reuid=redis --regid=redis --clear-groups redis-server \
                     /etc/redis/redis.conf --daemonize no";
const POSTGRES: &str = "install -d -o postgres -g postgres /run/postgresql
exec setpriv --reuid=postgres --regid=postgres --init-groups /usr/lib/postgresql/17/bin/postgres \\
    -D /var/lib/postgresql/17/main -c config_file=/etc/postgresql/17/main/postgresql.conf";
const MEMCACHED: &str = "exec memcached -u memcache -l 0.0.0.0";
const SSHD: &str = "mkdir -p /run/sshd\nexec /usr/sbin/sshd -D";
const PYTHON: &str = "exec python3 /usr/local/lib/rows/server.py $PORT";
const NODE: &str = "exec node /usr/local/lib/rows/server.js $PORT";
const JVM: &str = "exec java -m jdk.httpserver -b 0.0.0.0 -p $PORT -d /etc";

/// What runs everywhere where it can run.
pub const ROWS: &[Row] = &[
    row("nginx: a kept connection, a download in the middle", Server(NGINX), http::nginx),
    row("redis: MULTI, BLPOP and SUBSCRIBE open", Server(REDIS), redis::redis),
    row("postgresql: a transaction open, a lock waited for", Server(POSTGRES), postgres::postgres),
    row("memcached", Server(MEMCACHED), memcached::memcached),
    row("sshd: a login", Server(SSHD), ssh::sshd),
    row("tmux with vim, over sshd", Server(SSHD), ssh::tmux),
    row("Python: asyncio and a thread", Line(PYTHON), lines::checks_itself),
    row("Node.js: timers and a worker, io_uring forbidden", Line(NODE), lines::checks_itself),
    row(IO_URING, Line(NODE), lines::checks_itself),
    row("JVM: its web server", Line(JVM), http::jwebserver),
    object("threads, futexes, robust mutexes", "threads", ""),
    object("pty with a session", "pty", ""),
    object("timers", "timers", ""),
    object("timerfd", "timerfd", ""),
    object("huge pages", "hugepages", ""),
    object("memfd, shared memory", "shared", ""),
    object("System V IPC", "sysv", ""),
    object("inotify", "inotify", ""),
    object("epoll", "epoll", ""),
    object("eventfd", "eventfd", ""),
    object(SEMAPHORE, "semaphore", ""),
    object("signalfd, signals that pend", "signalfd", ""),
    object("pidfd", "pidfd", ""),
    object("unix sockets, passed descriptors", "unix", ""),
    row("UDP", Object("udp", ""), network::udp),
    row("TCP over IPv6", Object("nothing", ""), lines::checks_itself_over_ipv6),
    row("multicast", Object("multicast", "239.99.1.1"), network::multicast),
    row("multicast over IPv6", Object("multicast", "ff15::99"), network::multicast6),
    object("flock, POSIX and OFD locks, lease", "locks", ""),
    object("deleted files", "deleted", ""),
    object("FIFOs", "fifo", ""),
    object("2,000 descriptors", "descriptors", "2000"),
    object("500 children", "children", "500"),
    object(LARGE, "memory", "4096"),
];

/// Once with an id map and once without is enough.
const LARGE: &str = "4 GiB of memory";
/// Refused wherever it runs.
pub const IO_URING: &str = "Node.js without such a seccomp profile";
/// Rows that are not for systems that boot, where all are in one container: what is refused, and
/// memory of a size that is copied often enough.
const ALONE: &[&str] = &[IO_URING, SEMAPHORE, LARGE];
/// Refused as well.
pub const SEMAPHORE: &str = "eventfd, a semaphore";
/// It is refused, whatever it runs: one row says so.
const EXECUTED: &str = "eventfd";

impl Row {
    /// Whether its processes are root's alone.
    pub fn is_of_root(&self) -> bool {
        !matches!(self.program, Server(line) if line != SSHD)
    }

    /// Whether it is tried in a container of that kind.
    pub fn is_for(&self, kind: super::Kind) -> bool {
        match self.program {
            _ if kind == super::Kind::Execute => self.name == EXECUTED,
            _ if self.name == LARGE && kind == super::Kind::ProgramPrivileged => false,
            _ if kind.init().is_some() => !ALONE.contains(&self.name),
            Object(..) => true,
            Line(_) | Server(_) => kind != super::Kind::Recipe,
        }
    }
}
