//! The root of the container: what packaging/test-host.sh has made, given to the ids of an id map,
//! with what a server needs that has no default configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::harness::enter::PROGRAM_ROOTS;
use crate::harness::run::Run;
use crate::harness::template::shift_owners;
use crate::scenario::systemd::SHIFT;

/// For some gigabytes to be copied on a busy machine.
const COPY_LIMIT: Duration = Duration::from_secs(400);
/// Where the client is in the container.
pub const CLIENT: &str = "/usr/local/bin/client.sh";

const UNITS: &str = "etc/systemd/system";
/// Servers that Debian leaves to be configured, each as its manual has it.
const WRITTEN: &[(&str, &str)] = &[
    ("etc/hostname", "programs\n"),
    (
        "etc/hosts",
        "127.0.0.1 localhost\n10.99.0.70 programs.example programs\n::1 localhost ip6-localhost\n",
    ),
    ("etc/machine-id", ""),
    ("srv/x.php", "<?php echo 6 * 7, \"\\n\";\n"),
    ("srv/app.js", "require('http').createServer((q, a) => a.end('hello\\n')).listen(3000);\n"),
    (
        "srv/app.py",
        "def application(environ, start_response):\n    start_response('200 OK', [('Content-Type', \
         'text/plain')])\n    return [b'hello\\n']\n",
    ),
    (
        "etc/openvpn/static.conf",
        "dev tun0\nifconfig 10.8.0.1 10.8.0.2\nsecret static.key\nproviders legacy \
         default\nallow-deprecated-insecure-static-crypto\ncipher AES-256-CBC\n",
    ),
    (
        "etc/wireguard/wg0.conf",
        "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nListenPort = \
         51820\nAddress = 10.9.0.1/24\n",
    ),
    ("etc/tinc/net/tinc.conf", "Name = programs\nDeviceType = dummy\n"),
    ("etc/tinc/net/hosts/programs", ""),
    (
        "etc/radvd.conf",
        "interface eth0 \
         { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 10; prefix fd99::/64 {}; };\n",
    ),
    (
        "etc/keepalived/keepalived.conf",
        "vrrp_instance one \
         {\n  state BACKUP\n  interface eth0\n  virtual_router_id 7\n  priority 100\nvirtual_ipaddress { 10.99.0.77/24 }\n}\n",
    ),
    ("etc/default/isc-kea", ""),
    (
        "etc/stunnel/app.conf",
        "foreground = yes\npid =\n[app]\naccept = 4430\nconnect = 22\ncert = \
         /etc/stunnel/app.pem\n",
    ),
];
const SERVICES: &[(&str, &str)] = &[
    ("node-app", "/usr/bin/node /srv/app.js"),
    (
        "uwsgi-app",
        "/usr/bin/uwsgi-core --plugin python3 --http-socket 127.0.0.1:3001 --wsgi-file /srv/app.py \
         --master",
    ),
    ("gunicorn-app", "/usr/bin/gunicorn --chdir /srv --bind 127.0.0.1:3002 app:application"),
    ("stunnel-app", "/usr/bin/stunnel4 /etc/stunnel/app.conf"),
    ("dropbear-app", "/usr/sbin/dropbear -F -E -R -p 2222"),
    ("vnc-app", "/usr/bin/Xtigervnc :1 -SecurityTypes None -rfbport 5901"),
    ("xvfb-app", "/usr/bin/Xvfb :7"),
];
/// What makes keys, where its server is there.
const KEYS: &[(&str, &str)] = &[
    ("usr/sbin/openvpn", "openvpn --genkey secret /etc/openvpn/static.key"),
    ("usr/sbin/tincd", "yes '' | tincd -n net -K 2>/dev/null; touch /etc/tinc/net/hosts/programs"),
    (
        "usr/bin/stunnel4",
        "openssl req -new -x509 -nodes -days 9 -subj /CN=x -out /etc/stunnel/app.pem -keyout \
         /etc/stunnel/app.pem",
    ),
    ("usr/sbin/corosync", "corosync-keygen -l"),
];
/// What would wait for a network that does not come, or go out to one.
const MASKED: &[&str] =
    &["systemd-networkd-wait-online.service", "systemd-networkd.service", "apt-daily.timer"];

/// Makes the root of a group.
pub fn make(group: &str, root: &Path) {
    let made_of = Path::new(PROGRAM_ROOTS).join(group);
    assert!(made_of.join("usr").exists(), "no root: run packaging/test-host.sh --programs {group}");
    Run::new("cp").args(["-a", &made_of.to_string_lossy()]).arg(root).limit(COPY_LIMIT).ok();
    for (path, text) in WRITTEN {
        put(root, path, text);
    }
    for (name, command) in SERVICES {
        put(root, &format!("{UNITS}/{name}.service"), &format!("[Service]\nExecStart={command}\n"));
    }
    for unit in MASKED {
        let _ = std::os::unix::fs::symlink("/dev/null", root.join(UNITS).join(unit));
    }
    put(root, &CLIENT[1..], include_str!("client.sh"));
    fs::set_permissions(root.join(&CLIENT[1..]), fs::Permissions::from_mode(0o755)).unwrap();
    for (program, line) in KEYS.iter().filter(|(program, _)| root.join(program).exists()) {
        let made = Run::new("chroot").arg(root).args(["sh", "-c", line]).limit(COPY_LIMIT).output();
        if !made.success() {
            println!("{program}: {made}");
        }
    }
    shift_owners(root, SHIFT);
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
