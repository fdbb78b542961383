use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::fs;
use std::io::Write;

use Operation::{Dump, Restore};

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// A run of CRIU 4.2.1 for these tests.
    Run,
    /// A log that this project or a user met (FIELD-NOTES, TEST-HOSTS, CRIU's and LXC's issues);
    /// its place in the sources may be made up.
    Met,
    /// Only CRIU's sources.
    Source,
}

/// For each class at least one line.
#[rustfmt::skip]
const CASES: &[(Operation, Class, From, &str)] = &[
    (Dump, Class::NestedNamespace, From::Run, "(00.008048) Error (criu/namespaces.c:460): Can't \
                                               dump nested uts namespace for 279"),
    (Dump, Class::NestedNamespace, From::Run, "(00.001544) Error (criu/namespaces.c:460): Can't \
                                               dump nested user namespace for 309"),
    (Dump, Class::SessionOutside, From::Run, "(00.007988) Error (criu/cr-dump.c:1528): A session \
                                              leader of 574(574) is outside of its pid namespace"),
    (Restore, Class::ForeignProcess, From::Met, "(00.01) Error (criu/pstree.c:969): Can't restore \
                                                 sub-task in NS (cflags 80)"),
    (Dump, Class::ForeignProcess, From::Met, "(00.01) Error (criu/cgroup.c:810): cg: cg / shorter \
                                              than path prefix 10?"),
    (Dump, Class::FreezeTimeout, From::Run, "(02.002018) Error (criu/cr-dump.c:1655): Timeout \
                                             reached. Try to interrupt: 0"),
    (Dump, Class::SelfDump, From::Source, "(00.01) Error (compel/src/lib/infect.c:259): The criu \
                                           itself is within dumped tree."),
    (Dump, Class::Unseizable, From::Run, "(02.002143) Error (compel/src/lib/infect.c:262): \
                                          Unseizable non-zombie 555 found, state D, err -1/4"),
    (Dump, Class::Traced, From::Run, "(00.002163) Warn  (compel/src/lib/infect.c:132): Unable to \
                                      interrupt task: 38 (Operation not permitted)\n(00.002186) \
                                      Error (compel/src/lib/infect.c:417): Unable to detach from \
                                      38: No such process"),
    (Dump, Class::ProcessGone, From::Run, "(00.047317) Warn  (compel/src/lib/infect.c:132): Unable \
                                           to interrupt task: 99999 (No such process)\n(00.047358) \
                                           Error (compel/src/lib/infect.c:417): Unable to detach \
                                           from 99999: No such process"),
    (Dump, Class::NoSysResource, From::Run, "(00.004715) Error (criu/cr-dump.c:389): Can't get \
                                             rlimit 0: Operation not permitted"),
    (Dump, Class::Seccomp, From::Met, "(00.01) Error (compel/src/lib/ptrace.c:27): suspending \
                                       seccomp failed: Invalid argument"),
    (Dump, Class::Uprobes, From::Source, "(00.01) Error (criu/proc_parse.c:614): PID 7 has uprobes \
                                          vma. Consider using --allow-uprobes."),
    (Restore, Class::PidInUse, From::Run, "(00.001399) Error (criu/cr-restore.c:1237): Can't fork \
                                           for 71: File exists"),
    (Restore, Class::ExeLink, From::Met, "(00.02) pie: 71: prctl PR_SET_MM_MAP failed with \
                                          -9\n(00.03) pie: 71: Error (criu/pie/restorer.c:2335): \
                                          Restorer fail 71"),
    (Restore, Class::Crashed, From::Run, "(00.038061)      1: Error (criu/mount.c:48): mnt: BUG at \
                                          criu/mount.c:48\n(00.038922) Error \
                                          (criu/cr-restore.c:1269): 87 killed by signal 11: \
                                          Segmentation fault"),
    (Dump, Class::TtyMasterMissing, From::Run, "(00.007834) Error (criu/tty.c:410): tty: Found \
                                                slave peer index 0 without correspond master peer"),
    (Dump, Class::TtyMasterMissing, From::Met, "(00.01) Error (criu/tty.c:2399): tty: Unable to \
                                                find a master for /4"),
    (Dump, Class::ControllingTty, From::Met, "(00.01) Error (criu/tty.c:2281): tty: ctty \
                                              inheritance detected sid/pgrp 8, no PTY peer with \
                                              sid/pgrp needed"),
    (Dump, Class::TcpEstablished, From::Run, "(00.011005) Error (criu/sk-inet.c:200): inet: \
                                              Connected TCP socket, consider using \
                                              --tcp-established option."),
    (Restore, Class::TcpEstablished, From::Source, "(00.01)     37: Error (criu/sk-inet.c:912): \
                                                    inet: Connected TCP socket in image"),
    (Restore, Class::TcpClose, From::Source, "(00.01) Error (criu/image.c:94): Need to set the \
                                              --tcp-close options."),
    (Dump, Class::TcpInFlight, From::Run, "(00.126155) Error (criu/sk-inet.c:185): inet: In-flight \
                                           connection (l) for 8c6760"),
    (Dump, Class::NetlinkData, From::Run, "(00.004648) Error (criu/sk-netlink.c:77): netlink: The \
                                           socket has data to read"),
    (Dump, Class::UnixRequest, From::Run, "(00.264687) Error (criu/sk-unix.c:506): unix: Non-empty \
                                           write queue on an in-flight socket 0x5c149a"),
    (Dump, Class::QueuedCredentials, From::Run, "(02.936918) Error (criu/sk-queue.c:144): skqueue: \
                                                 Control messages in queue, not supported"),
    (Dump, Class::WatchRace, From::Met, "(00.01) Error (criu/proc_parse.c:2272): \
                                         parse_fdinfo_pid_s: error parsing [inotify wd:48 ino:1 \
                                         sdev:1a mask:2 ignored_mask:0 ] for 17"),
    (Dump, Class::PassCred, From::Met, "(00.01) Error (criu/sockets.c:640): sockets: Can't get \
                                        1:16 opt: Operation not supported"),
    (Dump, Class::UnsupportedSocket, From::Run, "(00.006990) Error (criu/sk-inet.c:137): inet: \
                                                 Unsupported proto 262 for socket 6b0fc"),
    (Dump, Class::DiagModule, From::Source, "(00.01) Error (criu/sockets.c:216): Diag module \
                                             missing (-2)"),
    (Dump, Class::ExternalUnixSocket, From::Run, "(00.023521) Error (criu/sk-unix.c:874): unix: \
                                                  External socket is used. Consider using \
                                                  --ext-unix-sk option."),
    (Dump, Class::ExternalUnixSocket, From::Run, "(00.109123) Error (criu/sk-unix.c:351): unix: \
                                                  Unix socket 1830739 not found"),
    (Dump, Class::FileLocks, From::Run, "(00.021344) Error (criu/file-lock.c:110): Some file locks \
                                         are hold by dumping tasks! You can try --file-locks to \
                                         dump them."),
    (Dump, Class::GhostTooBig, From::Run, "(00.007890) Error (criu/files-reg.c:1031): Can't dump \
                                           ghost file /w/ghost of 2998272 size, increase limit"),
    (Dump, Class::LinkRemap, From::Run, "(00.007512) Error (criu/files-reg.c:1122): Can't create \
                                         link remap for /w/la. Use link-remap option."),
    (Restore, Class::StaleRemap, From::Met, "(00.01)     37: Error (criu/files-reg.c:1931): Can't \
                                             link dev/null.cr.1.ghost -> dev/null: File exists"),
    (Dump, Class::WatchedFile, From::Run, "(00.073135) Error (criu/fsnotify.c:263): fsnotify: \
                                           Can't find suitable path for handle (dev 0x2b ino \
                                           0x94): -2"),
    (Restore, Class::WatchedFile, From::Met, "(00.01)      1: Error (criu/fsnotify.c:510): \
                                              fsnotify: Unable to open \
                                              sys/fs/cgroup/system.slice/system-getty.slice/cgroup.events: \
                                              No such file or directory"),
    (Dump, Class::ForeignFile, From::Run, "(00.007528) Error (criu/files-reg.c:1790): Can't lookup \
                                           mount=65 for fd=0 path=/dev/null"),
    (Dump, Class::BpfProgram, From::Run, "(00.016372) Error (criu/files-ext.c:94): Can't dump file \
                                          3 of that type [600] (anon anon_inode:bpf-prog)"),
    (Dump, Class::UnsupportedFile, From::Source, "(00.01) Error (criu/files-ext.c:94): Can't dump \
                                                  file 3 of that type [20600] (chr 10:229)"),
    (Dump, Class::UnsupportedFile, From::Run, "pie: 482: Error (criu/pie/parasite.c:588): send_fds \
                                               failed (-22)\n(00.009016) Error \
                                               (criu/parasite-syscall.c:280): Can't retrieve FDs \
                                               from socket"),
    (Restore, Class::FileChanged, From::Run, "(00.002270)    186: Error (criu/files-reg.c:2175): \
                                              File w/file1 has bad size 105 (expect 100)"),
    (Restore, Class::FileChanged, From::Run, "(00.002391)    209: Error (criu/files-reg.c:2294): \
                                              File w/file2 has bad mode 0100600 (expect 0100644)"),
    (Restore, Class::FileMissing, From::Run, "(00.002049)    186: Error (criu/files-reg.c:2353): \
                                              Can't open file w/file1 on restore: No such file or \
                                              directory"),
    (Restore, Class::InheritFd, From::Run, "Error (criu/files.c:1597): Can't fstat inherit fd 33: \
                                            Bad file descriptor"),
    (Dump, Class::ExternalMount, From::Run, "(00.011172) Error (criu/mount.c:753): mnt: 51:./out \
                                             doesn't have a proper root mount"),
    (Restore, Class::MountUnmapped, From::Met, "(00.01)      1: Error (criu/mount.c:3141): mnt: No \
                                                mapping for 195:/sys/fs/cgroup/perf_event \
                                                mountpoint"),
    (Dump, Class::UnsupportedFilesystem, From::Met, "(00.01) Error (criu/mount.c:724): mnt: FS mnt \
                                                     ./sys/kernel/config dev 0x22 root / \
                                                     unsupported id 261"),
    (Dump, Class::RootNotMount, From::Run, "(00.006158) Error (criu/mount.c:3876): mnt: The root \
                                            task has another root than mntns: /w/r"),
    (Dump, Class::RootNotMount, From::Met, "(00.01) Error (criu/mount.c:381): mnt: No parent found \
                                            for mountpoint 77 (@./)"),
    (Restore, Class::MountpointMissing, From::Run, "(00.034343)      1: Error \
                                                    (criu/mount-v2.c:634): mnt-v2: Can't stat \
                                                    mountpoint \
                                                    /tmp/.criu.mntns.0mI9WG/mnt-0000000047/proc: \
                                                    No such file or directory"),
    (Restore, Class::MountEngine, From::Met, "(00.01)      1: Error (criu/mount-v2.c:324): mnt-v2: \
                                              Failed to move_mount from /lib to \
                                              /tmp/.criu.mntns.x/mnt-1: Invalid argument"),
    (Restore, Class::MountEngine, From::Met, "(00.01)      1: Error (criu/mount-v2.c:1043): \
                                              mnt-v2: Can't copy sharing from \
                                              7[/systemd/propagate/x] to 8[/systemd/propagate/y]"),
    (Dump, Class::Autofs, From::Met, "(00.01) Error (criu/autofs.c:323): autofs: Failed to find \
                                      pipe_ino option (old kernel?)"),
    (Restore, Class::BridgeMissing, From::Run, "(00.032764) Error (criu/net.c:3899): net: Can't \
                                                add interface v7 to bridge nobr0: No such device"),
    (Restore, Class::InterfaceUnmapped, From::Run, "(00.006676)      1: Error (criu/net.c:1469): \
                                                    net: Unknown peer net namespace"),
    (Restore, Class::InterfaceExists, From::Run, "(00.006923)      1: Error \
                                                  (criu/libnetlink.c:54): -17 reported by netlink: \
                                                  File exists"),
    (Restore, Class::InterfaceName, From::Met, "(00.01)      1: Error (criu/libnetlink.c:54): -34 \
                                                reported by netlink: Numerical result out of \
                                                range"),
    (Restore, Class::InterfaceMissing, From::Run, "(00.006660)      1: Error (criu/sysctl.c:376): \
                                                   Can't open sysctl net/ipv6/conf/eth0/mtu: No \
                                                   such file or directory"),
    (Restore, Class::InterfaceUserns, From::Met, "(00.01)      1: Error (criu/net.c:1530): net: \
                                                  couldn't restore veth interface eth0 via \
                                                  usernsd"),
    (Restore, Class::InterfaceOther, From::Run, "(00.032311)      1: Error (criu/libnetlink.c:54): \
                                                 -16 reported by netlink: Device or resource busy"),
    (Dump, Class::NetworkUntold, From::Run, "(00.019563) Error (criu/libnetlink.c:54): -22 \
                                             reported by netlink: Invalid argument"),
    (Restore, Class::IpTool, From::Met, "RTNETLINK answers: Network unreachable\n(00.01)      1: \
                                         Error (criu/net.c:1969): net: IP tool failed on route \
                                         restore"),
    (Dump, Class::NetworkLock, From::Met, "(00.01) Error (criu/net.c:3045): net: Locking network \
                                           failed: iptables-restore returned -1. This may be \
                                           connected to disabled CONFIG_NETFILTER_XT_MARK kernel \
                                           build config option."),
    (Dump, Class::NetworkTool, From::Met, "Error (criu/util.c:642): execvp(\"iptables-restore\", \
                                           ...) failed: No such file or directory"),
    (Dump, Class::LoopbackDown, From::Met, "Error (criu/kerndat.c:743): Unable to connect a \
                                            socket: Network is unreachable"),
    (Restore, Class::LsmMissing, From::Run, "(00.004321) Error (criu/lsm.c:406): apparmor LSM \
                                             specified but apparmor not supported by kernel"),
    (Dump, Class::LsmDenies, From::Met, "(00.01) Error (compel/src/lib/infect.c:711): Unable to \
                                         connect a transport socket: Permission denied"),
    (Restore, Class::LsmProfile, From::Met, "(00.01) pie: 1: Error (criu/pie/restorer.c:196): \
                                             can't write lsm profile -2"),
    (Restore, Class::CgroupBusy, From::Met, "(00.01)      1: Error (criu/cgroup.c:1140): cg: Can't \
                                             move 1 into unified//lxc.payload.x/cgroup.procs \
                                             (-1/-1): Device or resource busy"),
    (Restore, Class::CgroupBusy, From::Met, "(00.01) Error (criu/cgroup.c:1397): cg: write to \
                                             cgroup.subtree_control: Invalid argument"),
    (Restore, Class::CgroupPermission, From::Met, "(00.01)      1: Error (criu/files-reg.c:2353): \
                                                   Can't open file \
                                                   sys/fs/cgroup/init.scope/memory.pressure on \
                                                   restore: Permission denied"),
    (Restore, Class::CgroupProperty, From::Met, "(00.01) Error (criu/cgroup.c:1490): cg: Failed \
                                                 writing lo 0 to net_prio/x/net_prio.ifpriomap: No \
                                                 such device"),
    (Dump, Class::FreezerMissing, From::Source, "(00.01) Error (criu/seize.c:1043): Neither a \
                                                 cgroupv1 (freezer.state) or cgroupv2 \
                                                 (cgroup.freeze) control file found."),
    (Dump, Class::KernelTooNew, From::Met, "Error (criu/vdso.c:401): vdso: Unexpected rt vDSO area \
                                            bounds"),
    (Restore, Class::OtherMachine, From::Source, "(00.01)     37: Error (criu/cr-restore.c:854): \
                                                  Core march mismatch 3"),
    (Dump, Class::MemoryTracking, From::Run, "(00.003033) Error (criu/config.c:1131): Tracking \
                                              memory is not available. Consider omitting \
                                              --track-mem option."),
    (Dump, Class::NotRoot, From::Source, "Error (criu/util.c:810): You need to be root to run this \
                                          command"),
    (Dump, Class::DiskFull, From::Run, "(00.009015) Error (criu/page-xfer.c:263): page-xfer: \
                                        Unable to spice data: No space left on device"),
    (Restore, Class::OutOfMemory, From::Source, "(00.01) Error (criu/cr-restore.c:1230): Can't \
                                                 fork for 37: Cannot allocate memory"),
    (Dump, Class::TarMissing, From::Source, "Error (criu/util.c:642): execvp(\"tar\", ...) failed: \
                                             No such file or directory"),
    (Dump, Class::ToolMissing, From::Source, "Error (criu/util.c:642): execvp(\"cuda-checkpoint\", \
                                              ...) failed: No such file or directory"),
    (Restore, Class::ImagesVersion, From::Run, "(00.000767) Error (criu/image.c:89): Not supported \
                                                images version 3"),
    (Restore, Class::ImagesMissing, From::Run, "(00.002542) No inventory.img image\n(00.002544) \
                                                Error (criu/protobuf.c:72): Unexpected EOF on \
                                                (empty-image)"),
    (Restore, Class::ImagesDamaged, From::Run, "(00.000744) Error (criu/image.c:554): Head magic \
                                                doesn't match for pstree.img"),
    (Restore, Class::ImagesDamaged, From::Run, "(00.001266) Error (criu/protobuf.c:93): Read 88 \
                                                bytes while 2327 expected from \
                                                /w/trunc/core-95.img: No such file or directory"),
    (Restore, Class::ImagesDamaged, From::Run, "(00.003199) pie: 95: Error \
                                                (criu/pie/restorer.c:1907): Can't read pages data \
                                                (-9)"),
    (Restore, Class::PluginMissing, From::Source, "(00.01) Error (criu/image.c:198): Missing \
                                                   required plugin: cuda_plugin"),
    (Restore, Class::ActionScript, From::Run, "Error (criu/util.c:642): execvp(\"/w/none.sh\", \
                                               ...) failed: No such file or directory\n(00.012695) \
                                               Error (criu/util.c:657): exited, \
                                               status=1\n(00.012717) Error \
                                               (criu/action-scripts.c:94): Script /w/none.sh \
                                               exited with -1"),
    (Dump, Class::ActionScript, From::Run, "(00.041081) Error (criu/util.c:657): exited, \
                                            status=1\n(00.041094) Error \
                                            (criu/action-scripts.c:94): Script /w/sd.sh exited \
                                            with -1"),
    (Dump, Class::Unknown, From::Source, "(00.01) Error (criu/cr-dump.c:624): Failed obtaining \
                                          futex robust list on 37"),
];

#[test]
fn every_class_is_found_by_a_real_line() {
    for (operation, class, from, log) in CASES {
        assert_eq!(summarise(log, *operation).class, *class, "{from:?} {log}");
    }
    let tested: HashSet<Class> = CASES.iter().map(|(_, class, ..)| *class).collect();
    let untested: Vec<&Class> = Class::ALL.iter().filter(|class| !tested.contains(class)).collect();
    assert!(untested.is_empty(), "{untested:?}");
    assert!(CASES.iter().filter(|(_, _, from, _)| *from == From::Run).count() > 35);
}

#[test]
fn texts_for_users_are_clauses() {
    for class in Class::ALL {
        for text in [class.explain(), class.remedy()] {
            assert!(!text.ends_with('.') && text.len() > 7, "{text}");
        }
    }
}

#[test]
fn a_later_consequence_does_not_hide_the_reason() {
    let log = "(02.002018) Error (criu/cr-dump.c:1655): Timeout reached. Try to interrupt: \
               0\n(02.002143) Error (compel/src/lib/infect.c:262): Unseizable non-zombie 555 \
               found, state D, err -1/4\n(02.002225) Error (compel/src/lib/infect.c:417): Unable \
               to detach from 555: No such process\n(02.002239) Error (criu/cr-dump.c:1975): \
               Dumping FAILED.\n";
    let summary = summarise(log, Dump);
    assert_eq!((summary.class, summary.outcome), (Class::FreezeTimeout, Outcome::Failed));
    assert_eq!(summary.first_error, summary.reason);
}

#[test]
fn harmless_errors_are_not_taken_for_the_reason() {
    let harmless = "(00.000745) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for \
                    self: Operation not permitted\nError: ipv4: Address already assigned.\n";
    let summary = summarise(
        &format!("{harmless}(00.1) Error (criu/cr-restore.c:1): Restoring FAILED.\n"),
        Restore,
    );
    assert_eq!(
        (summary.first_error, summary.class, summary.outcome),
        (None, Class::Unknown, Outcome::Failed)
    );
}

#[test]
fn takes_an_error_line_apart() {
    let line = "(00.034343)      1: Error (criu/mount-v2.c:634): mnt-v2: Can't stat mountpoint /x: \
                No such file";
    let error = summarise(line, Restore).first_error.unwrap();
    assert_eq!((error.file.as_str(), error.line), ("criu/mount-v2.c", 634));
    assert_eq!(error.subsystem.as_deref(), Some("mnt-v2"));
    assert_eq!(error.text, "Can't stat mountpoint /x: No such file");
    assert_eq!(error.to_string(), "mnt-v2: Can't stat mountpoint /x: No such file");
    let plain = summarise(
        "Error (criu/files.c:1597): Can't fstat inherit fd 33: Bad file descriptor",
        Dump,
    );
    assert_eq!(plain.first_error.unwrap().subsystem, None);
}

/// The log of a run of CRIU 4.2.1, shortened to the lines that tell something.
fn recorded(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/criu-4.2.1/logs").join(name)
}

#[test]
fn reads_recorded_logs() {
    type Expected = (&'static str, Operation, Outcome, Option<Phase>, Class);
    #[rustfmt::skip]
    let expected: &[Expected] = &[
        ("good.dump.log", Dump, Outcome::Succeeded, Some(Phase::ReleasingProcesses), Class::Unknown),
        ("good.restore.log", Restore, Outcome::Succeeded, Some(Phase::Resuming), Class::Unknown),
        ("container.restore.log", Restore, Outcome::Succeeded, Some(Phase::Resuming), Class::Unknown),
        ("nestuts.dump.log", Dump, Outcome::Failed, Some(Phase::Freezing), Class::NestedNamespace),
        ("tcpest.dump.log", Dump, Outcome::Failed, Some(Phase::DumpingFiles), Class::TcpEstablished),
        ("enospc.dump.log", Dump, Outcome::Failed, Some(Phase::DumpingMemory), Class::DiskFull),
        ("mntns.dump.log", Dump, Outcome::Failed, Some(Phase::CollectingMounts), Class::ExternalMount),
        ("freeze.dump.log", Dump, Outcome::Failed, Some(Phase::Freezing), Class::FreezeTimeout),
        ("traced.dump.log", Dump, Outcome::Failed, Some(Phase::Freezing), Class::Traced),
        ("pidinuse.restore.log", Restore, Outcome::Failed, Some(Phase::ForkingTasks), Class::PidInUse),
        ("fsize.restore.log", Restore, Outcome::Failed, Some(Phase::RestoringFiles), Class::FileChanged),
        ("nobr.restore.log", Restore, Outcome::Failed, Some(Phase::RestoringMemory), Class::BridgeMissing),
        ("badroot.restore.log", Restore, Outcome::Failed, Some(Phase::RestoringMounts), Class::MountpointMissing),
        ("noinv.restore.log", Restore, Outcome::Unfinished, None, Class::ImagesMissing),
    ];
    for (name, operation, outcome, phase, class) in expected {
        let summary = summarise_file(&recorded(name), *operation).unwrap();
        assert_eq!(
            (summary.outcome, summary.phase, summary.class),
            (*outcome, *phase, *class),
            "{name}"
        );
        assert!(!summary.last_lines.is_empty() && summary.last_lines.len() <= LAST_LINES);
    }
}

#[test]
fn the_phases_of_a_dump_come_in_order() {
    let text = fs::read_to_string(recorded("good.dump.log")).unwrap();
    let mut phases: Vec<Phase> = text.lines().filter_map(phase_of_line).collect();
    let mut seen = HashSet::new();
    phases.retain(|p| seen.insert(*p));
    use Phase::*;
    let begin = [Preparing, Freezing, LockingNetwork, CollectingMounts, CollectingNetwork];
    let rest = [DumpingProcesses, DumpingFiles, DumpingMemory, FinishingDump, ReleasingProcesses];
    assert_eq!(phases, [begin, rest].concat());
    assert_eq!(phase_of_line("(00.1) Dumping 1(22)'s namespaces"), Some(DumpingNamespaces));
    assert_eq!(phase_of_line("(00.1) Error (criu/x.c:1): Running pre-dump scripts"), None);
}

#[test]
fn reads_only_the_end_of_a_huge_log() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let line = "(00.000001) Error (criu/x.c:1): this one is too far back\n";
    for _ in 0..(2 * TAIL as usize / line.len()) {
        file.write_all(b"(00.000001) mem: nothing to see here, move on to the next\n").unwrap();
        file.flush().unwrap();
    }
    file.write_all(CASES[0].3.as_bytes()).unwrap();
    assert_eq!(summarise_file(file.path(), Dump).unwrap().class, Class::NestedNamespace);
    assert!(summarise_file(Path::new("/nonexistent"), Dump).is_err());
}

#[test]
fn follows_a_growing_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump.log");
    let append = |bytes: &[u8]| {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
    };
    let mut follower = Follower::new(&path);
    assert_eq!(follower.lines().unwrap(), Vec::<String>::new());
    append(b"one\ntw");
    assert_eq!(follower.lines().unwrap(), ["one"]);
    assert_eq!(follower.lines().unwrap(), Vec::<String>::new());
    append(b"o\n\xff\xfe\n");
    assert_eq!(follower.lines().unwrap(), ["two", "\u{fffd}\u{fffd}"]);
    fs::write(&path, "new\n").unwrap();
    assert_eq!(follower.lines().unwrap(), ["new"]);
    assert_eq!(follower.offset(), 4);
    append(&vec![b'x'; LONGEST + 1]);
    assert_eq!(follower.lines().unwrap()[0].len(), LONGEST + 1);
    assert_eq!(Follower::from_offset(&path, 2).lines().unwrap(), ["w"]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for piece in ["", "(00.1) Error (criu/a.c:7): ", "(", "pie: 1: Warn  (", "  12: Error (x:", "Error (é): é: "] {
            summarise(&format!("{piece}{text}"), Dump);
        }
        let real: String = CASES.iter().map(|c| c.3).collect::<Vec<_>>().join("\n");
        let cut: String = real.chars().skip(cut * 7).take(cut).collect();
        summarise(&cut, Restore);
    }
}
