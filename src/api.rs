//! What the programs and the tests outside of the crate use, under the paths that it has inside.
//!
//! Nothing else is public: rustc reports dead code, and its lint `unreachable_pub` keeps `pub` for
//! what is named here.

/// What the programs run.
pub mod cli {
    pub use crate::cli::commands;
    /// What the commands share.
    pub mod common {
        pub use crate::cli::common::EXIT_CODES;
    }
    /// The two programs.
    pub mod multicall {
        pub use crate::cli::multicall::{commands, hooks};
    }
}

/// The settings file.
pub mod settings {
    pub use crate::settings::KEYS;
}

/// Everything that the kernel says about a container, for tests that compare one with itself.
pub mod inspect {
    pub use crate::inspect::{
        Class, Difference, FAMILIES, Family, PutBack, Snapshot, Standing, State, Subject, compare,
    };
    /// The table of states.
    pub mod state {
        pub use crate::inspect::state::{all, by_name};
    }
}

/// LXC's configuration, hooks and protocol.
pub mod lxc {
    /// Terminals that a container lends.
    pub mod command {
        pub use crate::lxc::command::{Client, LentTty};
    }
    /// Configuration files.
    pub mod config {
        pub use crate::lxc::config::{Config, ConfigError, HookKind, items};
        /// The host's lxc.conf.
        pub mod system {
            pub use crate::lxc::config::system::SystemConfig;
        }
    }
    /// A container that is defined by a file.
    pub mod definition {
        pub use crate::lxc::definition::Defined;
    }
    /// How LXC calls hooks.
    pub mod hook {
        pub use crate::lxc::hook::{
            Context, Direction, NAMESPACES, Target, run_all, run_net_script,
        };
    }
    /// Names of containers.
    pub mod name {
        pub use crate::lxc::name::{ContainerName, LxcPath};
    }
    /// The messages of LXC's command socket.
    pub mod protocol {
        pub use crate::lxc::protocol::{
            CgroupCtx, CgroupFd, DeviceItem, Header, HierarchyKind, Layout, Message, State,
            c_string, decode_wanted, socket_name,
        };
    }
    /// The command socket of a restored container.
    pub mod server {
        pub use crate::lxc::server::{Hierarchy, Served, Server};
    }
}

/// CRIU's images and log.
pub mod criu {
    /// Images, decoded and changed.
    pub mod images {
        pub use crate::criu::images::{
            Becomes, Family, FileKind, InetSocket, Net, Readdress, Shown, decode_anything,
            interfaces, open_files, readdressed, settle, with_groups_apart, with_macs,
            with_openable_executables, with_ready_made, with_sockets,
        };
    }
    /// CRIU's log.
    pub mod log {
        pub use crate::criu::log::{Operation, phase_of_line, summarise};
    }
}

/// Configurations that can be checkpointed.
pub mod prepare {
    /// Changes of files.
    pub mod change {
        pub use crate::prepare::change::Change;
    }
    /// A container's configuration.
    pub mod container {
        pub use crate::prepare::container::plan;
    }
    /// The host's bridge.
    pub mod host {
        pub use crate::prepare::host::{Network, Port, Root, plan};
        /// The bridge that is asked for.
        pub mod spec {
            pub use crate::prepare::host::spec::{Address, BridgeSpec, Cidr};
        }
    }
    /// The inits that are known.
    pub mod init {
        pub use crate::prepare::init::Init;
    }
    /// What is installed.
    pub mod installed {
        pub use crate::prepare::installed::Installed;
    }
}

/// What a container has of its host.
pub mod resources {
    /// Control groups.
    pub mod cgroup {
        pub use crate::resources::cgroup::tasks;
    }
    /// Links and bridges.
    pub mod network {
        pub use crate::resources::network::{NoBridge, Port, apply};
        /// The ports of a container.
        pub mod ports {
            pub use crate::resources::network::ports::{
                Survey, find, lock, match_restored, survey, unlock,
            };
        }
        /// What is to be made of them.
        pub mod plan {
            pub use crate::resources::network::plan::{Wanted, plan};
        }
    }
}

/// The lock on a container.
pub mod rollback {
    /// Where it is.
    pub mod lock {
        pub use crate::rollback::lock::{STATE_ROOT, key};
    }
}

/// A checkpoint's directory.
pub mod store {
    /// Its record.
    pub mod record {
        pub use crate::store::record::Record;
    }
}

/// The kernel.
pub mod sys {
    /// Links, addresses, routes.
    pub mod netlink {
        pub use crate::sys::netlink::{
            Error, Link, Mac, Netlink, NewVeth, PortSettings, Vlan, in_netns,
        };
    }
    /// Terminals.
    pub mod pty {
        pub use crate::sys::pty::Pty;
    }
}
