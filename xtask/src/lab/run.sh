# Runs one command in the lab as `cargo xtask lab run` promises: the built programs on PATH, images in $RAMET_IMAGES.
# Every step is skipped when done before; one that starts a process is paid by each command, so there are few.
#
# arguments: NOW BINARIES [NAME=PATH]... -- [VARIABLE=VALUE]... -- COMMAND [ARGUMENT]...
# NOW is the outer machine's clock, BINARIES a folder of /binaries, PATH below /artifacts becomes $RAMET_IMAGES/NAME.
set -eu

# An emulated clock drifts when the outer machine is busy, asleep or restored.
now=$1 binaries=$2
shift 2
seconds=$(date +%s)
lag=$((${now%.*} - seconds))
if [ "$lag" -gt 1 ] || [ "$lag" -lt -1 ]; then date --utc --set "@$now" > /dev/null; fi

programs=/srv/ramet/programs/$binaries
if [ ! -d "$programs" ]; then
  new=$programs.$$
  mkdir -p "${programs%/*}"
  cp -r "/binaries/$binaries" "$new"
  mv -T "$new" "$programs" 2> /dev/null || rm -rf "$new" # another command was faster
fi

RAMET_IMAGES=/srv/ramet/images
while [ "$1" != -- ]; do
  name=${1%%=*} file=/artifacts/${1#*=} here=$RAMET_IMAGES/${1%%=*}
  shift
  case $name in
  *.qcow2 | *.raw)
    # Large, and read in place.
    [ "$here" -ef "$file" ] || { mkdir -p "$RAMET_IMAGES" && ln -sfn "$file" "$here.$$" && mv -T "$here.$$" "$here"; }
    ;;
  *)
    # A private key: ssh wants its owner and mode right.
    cmp -s "$file" "$here" || { mkdir -p "$RAMET_IMAGES" && install -m 0600 "$file" "$here.$$" && mv -T "$here.$$" "$here"; }
    ;;
  esac
done
shift

while [ "$1" != -- ]; do
  export "$1"
  shift
done
shift

export RAMET_IMAGES PATH="$programs:$PATH"
set +e
"$@"
exit $?
