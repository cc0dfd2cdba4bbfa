#!/bin/bash
# Install, upgrade or remove the edgelut agent on Raspberry Pi OS or Debian, 64-bit, Python 3.11 or newer.
#
#   sudo deploy/install-agent.sh --token TOKEN [--meter KIND:PORT|auto]      first time; TOKEN from `coordinator enroll`
#   sudo deploy/install-agent.sh                                             upgrade: identity, spool and settings stay
#   sudo deploy/install-agent.sh --offline WHEELDIR …                        without internet (deploy/collect-wheels.sh)
#   sudo deploy/install-agent.sh --uninstall                                 leaves /var/lib/edgelut-agent alone
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PREFIX=/opt/edgelut
CONFIG=/etc/edgelut/agent.toml
STATE=/var/lib/edgelut-agent
UNIT=/etc/systemd/system/edgelut-agent.service
RFCOMM=/etc/systemd/system/edgelut-rfcomm.service
RULES=/etc/udev/rules.d/70-edgelut-meter.rules
TOKEN='' METER='' WHEELS='' UNINSTALL=''

fail() { echo "install-agent: $*" >&2; exit 2; }
say() { echo "==> $*"; }

while [ $# -gt 0 ]; do
    case "$1" in
        --token | --meter | --offline)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case "$1" in --token) TOKEN=$2 ;; --meter) METER=$2 ;; --offline) WHEELS=$2 ;; esac
            shift 2 ;;
        --uninstall) UNINSTALL=1; shift ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown option '$1'; --help lists them" ;;
    esac
done

[ "$(id -u)" = 0 ] || fail "this changes the system: run it with sudo"
command -v systemctl > /dev/null || fail "there is no systemd here"

if [ -n "$UNINSTALL" ]; then
    systemctl disable --now edgelut-agent.service 2> /dev/null || true
    rm -f "$UNIT" "$RULES" "$CONFIG"
    [ ! -f "$RFCOMM" ] || { systemctl disable --now edgelut-rfcomm.service 2> /dev/null || true; rm -f "$RFCOMM"; }
    rmdir /etc/edgelut 2> /dev/null || true
    rm -rf "$PREFIX"
    systemctl daemon-reload
    udevadm control --reload 2> /dev/null || true
    if id edgelut > /dev/null 2>&1 && [ ! -d /var/lib/edgelut ]; then userdel edgelut; fi
    say "removed; measurements and the identity are still in $STATE"
    exit 0
fi

case "$(uname -m)" in aarch64 | x86_64) ;; *) fail "$(uname -m) is not supported: a 64-bit system is needed" ;; esac
command -v python3 > /dev/null || fail "python3 is missing: apt install python3 python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed (Debian 12 has it)"
python3 -c 'import ensurepip, venv' 2> /dev/null || fail "python3-venv is missing: apt install python3-venv"
[ -z "$WHEELS" ] || [ -d "$WHEELS" ] || fail "--offline: there is no folder $WHEELS"
[ -n "$TOKEN" ] || [ -e "$STATE/identity/identity.json" ] \
    || fail "this board has no identity yet: give it the token that \`coordinator enroll\` printed (--token TOKEN)"

# ---- the programs: a new folder beside the old one, exchanged when it is whole ----

FREE_KB=$(df --output=avail -k "$(dirname "$PREFIX")" | tail -1)
[ "$FREE_KB" -gt 1200000 ] || fail "less than 1.2 GB are free for $PREFIX: PyTorch needs most of that"
mkdir -p "$PREFIX"
NEW="$PREFIX/venv-$(date +%Y%m%d-%H%M%S)"
trap 'rm -rf "$NEW"' ERR INT TERM
say "installing into $NEW"
python3 -m venv "$NEW"
PIP=("$NEW/bin/pip" install --no-cache-dir --disable-pip-version-check --quiet)
[ -z "$WHEELS" ] || PIP+=(--no-index --find-links "$WHEELS")
LOCK="$HERE/requirements-agent-$(uname -m).txt"
if [ -f "$LOCK" ]; then
    "${PIP[@]}" --require-hashes --only-binary :all: -r "$LOCK"
elif [ -z "$WHEELS" ]; then
    [ -n "${TORCH_INDEX_URL:-}" ] || say "torch may bring gigabytes of CUDA: TORCH_INDEX_URL=… takes it from a CPU index"
    "${PIP[@]}" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "torch>=2.9,<3"
fi
WHEEL=$(ls "${WHEELS:-/nonexistent}"/edgelut-*.whl 2> /dev/null | sort -V | tail -1 || true)
if [ -n "$WHEEL" ]; then
    "${PIP[@]}" "$WHEEL[agent]"
else
    "${PIP[@]}" "$HERE/..[agent]"
fi
"$NEW/bin/edgelut-agent" --version

# ---- user, settings, devices ----

id edgelut > /dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir "$STATE" --shell /usr/sbin/nologin edgelut
for GROUP in dialout video; do
    if getent group "$GROUP" > /dev/null; then usermod -aG "$GROUP" edgelut; fi
done
install -d -m 0700 -o edgelut -g edgelut "$STATE"
chown -R edgelut:edgelut "$STATE"
if [ -n "$TOKEN" ]; then
    say "enrolling"
    runuser -u edgelut -- env HOME="$STATE" "$NEW/bin/edgelut-agent" enroll --token "$TOKEN" --identity "$STATE/identity" \
        --write-config "$STATE/agent.toml.new" ${METER:+--meter "$METER"}
    install -D -m 0644 "$STATE/agent.toml.new" "$CONFIG"
    rm -f "$STATE/agent.toml.new"
elif [ ! -f "$CONFIG" ]; then
    fail "$CONFIG is missing: write it (docs/fleet.md) or enroll again with --token"
fi
install -D -m 0644 "$HERE/udev/70-edgelut-meter.rules" "$RULES"
install -D -m 0644 "$HERE/systemd/edgelut-agent.service" "$UNIT"
if [ -f /etc/edgelut/meter.env ]; then install -D -m 0644 "$HERE/systemd/edgelut-rfcomm.service" "$RFCOMM"; fi
udevadm control --reload 2> /dev/null && udevadm trigger --subsystem-match=tty 2> /dev/null || true

# ---- exchange and start ----

OLD=$(readlink -f "$PREFIX/venv" 2> /dev/null || true)
ln -sfn "$(basename "$NEW")" "$PREFIX/venv.link" && mv -T "$PREFIX/venv.link" "$PREFIX/venv"
trap - ERR INT TERM
systemctl daemon-reload
if [ -f "$RFCOMM" ]; then systemctl enable --now edgelut-rfcomm.service; fi
systemctl enable edgelut-agent.service
systemctl restart edgelut-agent.service
case "$OLD" in "$PREFIX"/venv-*) [ "$OLD" = "$NEW" ] || rm -rf "$OLD" ;; esac
say "edgelut-agent runs; its log: journalctl -u edgelut-agent -f"
