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

function __lxc_cr_checkpoints
    set -l container (__lxc_cr_after -n --name)
    test -n "$container"; or return
    set -l lxcpath (__lxc_cr_after -P --lxcpath)
    test -n "$lxcpath"; or set lxcpath (lxc-config lxc.lxcpath 2>/dev/null)
    for image in $lxcpath/$container/*/inventory.img
        string replace -r '.*/([^/]+)/inventory.img$' '$1' -- $image
    end
end
