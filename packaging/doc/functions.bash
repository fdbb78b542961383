# What is to be completed, and what the line says about the container.
_lxc_cr_line() {
    local i
    cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} lxcpath='' container=''
    # --option=VALUE comes in three words.
    [ "$cur" != = ] || cur=''
    [ "$prev" != = ] || prev=${COMP_WORDS[COMP_CWORD - 2]}
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -n|--name) container=${COMP_WORDS[i + 1]#=} ;;
            -P|--lxcpath) lxcpath=${COMP_WORDS[i + 1]#=} ;;
        esac
    done
}

_lxc_cr_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_lxc_cr_containers() {
    _lxc_cr_words "$(lxc-ls -1 ${lxcpath:+-P "$lxcpath"} 2>/dev/null)"
}

_lxc_cr_paths() {
    compopt -o filenames 2>/dev/null || true
    mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}

# The container's own checkpoints, and any directory.
_lxc_cr_checkpoints() {
    local image dir
    _lxc_cr_paths -d
    [ -n "$container" ] || return 0
    [ -n "$lxcpath" ] || lxcpath=$(lxc-config lxc.lxcpath 2>/dev/null)
    for image in "$lxcpath/$container"/*/inventory.img; do
        dir=${image%/inventory.img}
        dir=${dir##*/}
        if [ -e "$image" ] && [[ $dir == "$cur"* ]]; then COMPREPLY+=("$dir"); fi
    done
}
