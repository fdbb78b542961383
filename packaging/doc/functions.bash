# What is to be completed, and what the line says about the container.
_lxc_cr_line() {
    local i=$COMP_CWORD
    cur=${COMP_WORDS[i]} lxcpath='' container=''
    # A time comes in several words, for bash ends them at colons.
    while [ "$i" -gt 1 ] && [[ ${COMP_WORDS[i]} == : || ${COMP_WORDS[i - 1]} == : ]]; do
        i=$((i - 1))
        cur=${COMP_WORDS[i]}$cur
    done
    prev=${COMP_WORDS[i - 1]}
    # --option=VALUE comes in three words.
    [ "$cur" != = ] || cur=''
    [ "$prev" != = ] || prev=${COMP_WORDS[i - 2]}
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -n|--name) container=${COMP_WORDS[i + 1]#=} ;;
            -P|--lxcpath) lxcpath=${COMP_WORDS[i + 1]#=} ;;
        esac
    done
    # lxc-restart web --at ...
    [ -n "$container" ] || [ "$COMP_CWORD" -lt 2 ] || [[ ${COMP_WORDS[1]} == -* ]] ||
        container=${COMP_WORDS[1]}
}

_lxc_cr_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_lxc_cr_containers() {
    _lxc_cr_words "$(lxc-ls -1 ${lxcpath:+-P "$lxcpath"} 2>/dev/null)"
}

# With lxc-checkpoint -r one that does not run.
_lxc_cr_running() {
    local word running=--running
    for word in "${COMP_WORDS[@]}"; do
        case $word in -r|--restore) running='' ;; esac
    done
    _lxc_cr_words "$(lxc-ls -1 ${running:+"$running"} ${lxcpath:+-P "$lxcpath"} 2>/dev/null)"
}

_lxc_cr_containers_or_paths() {
    case $cur in
        */*) _lxc_cr_paths -d ;;
        *) _lxc_cr_containers ;;
    esac
}

_lxc_cr_interfaces() {
    _lxc_cr_words "$(ls /sys/class/net 2>/dev/null)"
}

_lxc_cr_bridges() {
    local link names=''
    for link in /sys/class/net/*/bridge; do
        [ ! -d "$link" ] || { link=${link%/bridge}; names+=" ${link##*/}"; }
    done
    _lxc_cr_words "$names"
}

# The times of the container's list of checkpoints.
_lxc_cr_kept() {
    local dir times=latest
    [ -n "$lxcpath" ] || lxcpath=$(lxc-config lxc.lxcpath 2>/dev/null)
    if [ -n "$container" ]; then
        for dir in "$lxcpath/$container"/checkpoints/*/inventory.img; do
            [ ! -e "$dir" ] || { dir=${dir%/inventory.img}; times+=" ${dir##*/}"; }
        done
    fi
    _lxc_cr_words "$times"
    # What stands before the last colon is on the line already.
    COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*:}"}"}")
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
