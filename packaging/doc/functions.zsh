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
