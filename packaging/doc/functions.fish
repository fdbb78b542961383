# What the line says after one of these options.
function __lxc_cr_after
    set -l line (commandline -opc)
    for i in (seq 2 (math (count $line) - 1))
        if contains -- $line[$i] $argv
            echo $line[(math $i + 1)]
            return
        end
    end
end

function __lxc_cr_containers
    set -l lxcpath (__lxc_cr_after -P --lxcpath)
    if test -n "$lxcpath"
        lxc-ls -1 -P $lxcpath 2>/dev/null
    else
        lxc-ls -1 2>/dev/null
    end
end

# With lxc-checkpoint -r one that does not run.
function __lxc_cr_running
    set -l running --running
    if contains -- -r (commandline -opc); or contains -- --restore (commandline -opc)
        set running
    end
    set -l lxcpath (__lxc_cr_after -P --lxcpath)
    if test -n "$lxcpath"
        lxc-ls -1 $running -P $lxcpath 2>/dev/null
    else
        lxc-ls -1 $running 2>/dev/null
    end
end

function __lxc_cr_containers_or_paths
    if string match -q '*/*' -- (commandline -ct)
        __fish_complete_directories
    else
        __lxc_cr_containers
    end
end

function __lxc_cr_interfaces
    for link in /sys/class/net/*
        string replace -r '.*/' '' -- $link
    end
end

function __lxc_cr_bridges
    for link in /sys/class/net/*/bridge
        string replace -r '.*/([^/]+)/bridge$' '$1' -- $link
    end
end

# The times of the container's list of checkpoints.
function __lxc_cr_kept
    echo latest
    set -l container (__lxc_cr_after -n --name)
    set -l line (commandline -opc)
    # lxc-restart web --at ...
    if test -z "$container"; and not string match -q -- '-*' $line[2]
        set container $line[2]
    end
    test -n "$container"; or return
    set -l lxcpath (__lxc_cr_after -P --lxcpath)
    test -n "$lxcpath"; or set lxcpath (lxc-config lxc.lxcpath 2>/dev/null)
    for image in $lxcpath/$container/checkpoints/*/inventory.img
        string replace -r '.*/([^/]+)/inventory.img$' '$1' -- $image
    end
end

function __lxc_cr_checkpoints
    set -l container (__lxc_cr_after -n --name)
    test -n "$container"; or return
    set -l lxcpath (__lxc_cr_after -P --lxcpath)
    test -n "$lxcpath"; or set lxcpath (lxc-config lxc.lxcpath 2>/dev/null)
    for image in $lxcpath/$container/*/inventory.img
        string replace -r '.*/([^/]+)/inventory.img$' '$1' -- $image
    end
end
