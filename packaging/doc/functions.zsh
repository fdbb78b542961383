# What the line says after one of these options.
_lxc_cr_after() {
    local i
    for (( i = 2; i < $#words; i++ )); do
        if (( $argv[(Ie)$words[i]] )); then print -r -- $words[i+1]; return; fi
    done
}

_lxc_cr_containers() {
    local lxcpath="$(_lxc_cr_after -P --lxcpath)"
    local -a names
    names=(${(f)"$(lxc-ls -1 ${lxcpath:+-P} ${lxcpath:+$lxcpath} 2>/dev/null)"})
    compadd -a names
}

# With lxc-checkpoint -r one that does not run.
_lxc_cr_running() {
    local lxcpath="$(_lxc_cr_after -P --lxcpath)" running=--running
    local -a names
    (( $words[(I)(-r|--restore)] )) && running=
    names=(${(f)"$(lxc-ls -1 ${running:+$running} ${lxcpath:+-P} ${lxcpath:+$lxcpath} 2>/dev/null)"})
    compadd -a names
}

_lxc_cr_containers_or_paths() {
    if [[ $PREFIX == */* ]]; then _files -/; else _lxc_cr_containers; fi
}

_lxc_cr_interfaces() {
    local -a names
    names=(/sys/class/net/*(N:t))
    compadd -a names
}

_lxc_cr_bridges() {
    local -a names
    names=(/sys/class/net/*/bridge(N:h:t))
    compadd -a names
}

# The times of the container's list of checkpoints.
_lxc_cr_kept() {
    local lxcpath="$(_lxc_cr_after -P --lxcpath)" container="$(_lxc_cr_after -n --name)"
    local -a times
    # lxc-restart web --at ...
    [[ -n $container || $words[2] == -* ]] || container=$words[2]
    if [[ -n $container ]]; then
        times=(${lxcpath:-$(lxc-config lxc.lxcpath 2>/dev/null)}/$container/checkpoints/*/inventory.img(N:h:t))
    fi
    compadd latest
    compadd -a times
}

# The container's own checkpoints, and any directory.
_lxc_cr_checkpoints() {
    local lxcpath="$(_lxc_cr_after -P --lxcpath)" container="$(_lxc_cr_after -n --name)"
    local -a dirs
    if [[ -n $container ]]; then
        dirs=(${lxcpath:-$(lxc-config lxc.lxcpath 2>/dev/null)}/$container/*/inventory.img(N:h:t))
        compadd -a dirs
    fi
    _files -/
}
