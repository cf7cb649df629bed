# shellcheck shell=bash disable=SC2034,SC2154 # the scripts set and use these variables
# What the scripts of this folder share: options, errors, --dry-run. Sourced, not run.
# Written for bash 3.2 too, the one of macOS.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
restarts=100  # a run that was interrupted this often has another problem

fail() {
  echo "error: $*" >&2
  exit 1
}

# parse VERBS OPTIONS ARGUMENTS...: sets `verb`, a variable for each option, and `extra` to what
# follows `--`. OPTIONS are written `name=` where a value belongs to them.
parse() {
  local verbs=$1 options="$2 dry-run" option
  shift 2
  verb=${1---help}
  if [[ $verb == --help ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0" # the comment on top of the script
    exit
  fi
  [[ " $verbs " == *" $verb "* ]] || fail "expected one of: $verbs; got $verb"
  while shift && (($#)); do
    option=${1#--}
    case $1 in
      --) extra=("${@:2}") && return ;;
      --*=*) option=${option%%=*}= ;;
    esac
    [[ $1 == --* && " $options " == *" $option "* ]] ||
      fail "unknown option $1; there are ${options// /, }, and options of the training follow --"
    option=${option%=}
    case $1 in
      *=*) printf -v "${option//-/_}" %s "${1#*=}" ;;
      *) printf -v "${option//-/_}" yes ;;
    esac
  done
}

need() {
  local option
  for option in "$@"; do
    [[ ${!option} ]] || fail "--$option is missing"
  done
}

# Sets `training`, what Python is called with on every worker.
need_training() {
  need config workdir
  [[ -f $root/${config%%:*} ]] || fail "--config=$config: there is no such file in $root"
  # An empty array counts as unset in bash 3.2.
  training=(-m maskgil_jax.main "--config=$config" "--workdir=$workdir" --distributed=auto
    ${extra[@]+"${extra[@]}"})
}

# Sets `slices`, `generation`, `shape` and `chips` (of a slice) from --topology=v5p:4x4x4, or
# =2xv5p:4x4x4 for two slices.
need_topology() {
  need topology
  [[ $topology =~ ^([1-9][0-9]*x)?((v5e|v6e):|(v4|v5p|tpu7x):[1-9][0-9]*x)[1-9][0-9]*x[1-9][0-9]*$ ]] ||
    fail "--topology=$topology: expected v5e: or v6e:NxN, or v4:, v5p: or tpu7x:NxNxN, or several" \
      "slices of it, as 2xv5e:NxN"
  slices=${BASH_REMATCH[1]%x} generation=${topology%%:*} shape=${topology#*:}
  generation=${generation#"${slices}x"} slices=${slices:-1}
  chips=$((${shape//x/*}))
}

# The words as a shell reads them.
quote() {
  local word words='' escaped="'\\''"
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="'${word//\'/$escaped}'"
    words+=" $word"
  done
  printf '%s\n' "${words# }"
}

run() {
  if [[ $dry_run ]]; then quote "$@"; else "$@"; fi
}
