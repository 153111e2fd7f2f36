# SPDX-License-Identifier: Apache-2.0
# Completion of stackwatch for bash. What there is the program itself tells (--help, 4 ms), so nothing here can lag
# behind it.

# The words of a command line that are verbs: "stacks", "watch add".
_stackwatch_verb() {
  local -n words_of=$1
  local last=$2 word verb=
  local -a known
  local i=1
  while ((i < last)); do
    word=${words_of[i]}
    case $word in
      -*) ;;
      *)
        mapfile -t known < <(_stackwatch_verbs $verb)
        [[ " ${known[*]} " == *" $word "* ]] || break
        verb+="${verb:+ }$word"
        ;;
    esac
    ((i++))
  done
  printf '%s' "$verb"
}

# Arguments: a verb, in words; prints the verbs below it. The name of a verb is the first word of an indented line of
# the part "Subcommands:".
_stackwatch_verbs() {
  "${STACKWATCH_PROGRAM:-stackwatch}" "$@" --help 2>/dev/null |
    awk '/^[A-Z][a-z]*:$/ { part = $1; next } /^[^ ]/ { part = "" } part == "Subcommands:" && /^  [a-z]/ { print $1 }'
}

# Arguments: a verb, in words; prints its options, each on a line: names with "," between them, a blank, what follows
# ("" for a flag; PATH, FILE, {a,b,c}, …).
_stackwatch_options() {
  "${STACKWATCH_PROGRAM:-stackwatch}" "$@" --help 2>/dev/null |
    awk '/^[A-Z][a-z]*:$/ { part = $1; next } /^[^ ]/ { part = "" }
         part == "Options:" && /^  -/ { line = substr($0, 3); sub(/  .*/, "", line); print line }'
}

# Arguments: what the option is called, a verb in words. Prints what follows the option, nothing for a flag.
_stackwatch_value_of() {
  local name=$1 names rest
  shift
  while read -r names rest; do
    [[ ",$names," == *",$name,"* ]] && { printf '%s' "$rest"; return; }
  done < <(_stackwatch_options "$@")
}

_stackwatch_values() {
  local kind=$1 current=$2
  case $kind in
    *'{'*'}'*)
      kind=${kind#*\{}
      kind=${kind%%\}*}
      mapfile -t COMPREPLY < <(compgen -W "${kind//,/ }" -- "$current")
      ;;
    PROBES*)
      # Several with "," between them.
      local before=
      [[ $current == *,* ]] && before=${current%,*},
      mapfile -t COMPREPLY < <(compgen -P "$before" -W 'on_cpu off_cpu memory page_fault' -- "${current##*,}")
      ;;
    PATH* | FILE*) mapfile -t COMPREPLY < <(compgen -f -- "$current") && compopt -o filenames 2>/dev/null ;;
    PID*) mapfile -t COMPREPLY < <(cd /proc && compgen -G '[0-9]*' | grep -E "^${current:-[0-9]}") ;;
    *) COMPREPLY=() ;;
  esac
}

_stackwatch() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} i verb kind
  COMPREPLY=()
  # What is behind "--" is another command.
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${COMP_WORDS[i]} == -- ]] || continue
    if declare -F _command_offset >/dev/null; then _command_offset $((i + 1)); else mapfile -t COMPREPLY < <(compgen -c -- "$current"); fi
    return
  done
  verb=$(_stackwatch_verb COMP_WORDS "$COMP_CWORD")
  if [[ $previous == -* ]]; then
    kind=$(_stackwatch_value_of "$previous" $verb)
    if [[ -n $kind ]]; then
      _stackwatch_values "$kind" "$current"
      return
    fi
  fi
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_stackwatch_options $verb | cut -d' ' -f1 | tr ',' ' ')" -- "$current")
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$(_stackwatch_verbs $verb)" -- "$current")
  [[ ${#COMPREPLY[@]} -gt 0 ]] && return
  case $verb in
    stacks) _stackwatch_values PID "$current" ;;
    replay | 'import perf-script') _stackwatch_values FILE "$current" ;;
  esac
}
complete -F _stackwatch stackwatch
