# The domain controller on 10.77.0.2 of the loopback interface, and beside it a command. $root is the tools' root.
chroot "$root" ip link set lo up
chroot "$root" ip address add 10.77.0.2/24 dev lo
# One controller does not get into the way of another in the same root.
mount -t tmpfs tmpfs "$root/run"
# The controller's name, for the command.
mount --bind "$root/etc/hosts" /etc/hosts

# The controller ends with whoever has `in` open for writing: this shell, however it ends.
mkfifo "$root/tmp/in" "$root/tmp/out"
chroot "$root" ad-dc /tmp/dc < "$root/tmp/in" > "$root/tmp/out" &
exec 3> "$root/tmp/in" 4< "$root/tmp/out"
ready=$(timeout 120 head -n 1 <&4) || :
[ "$ready" = ready ] || { echo 'xtask: the domain controller did not start' >&2; exit 1; }

cat > "$root/tmp/dc.toml" << END
url = "ldaps://dc1.ad.ramet.test"
address = "10.77.0.2"
realm = "AD.RAMET.TEST"
workgroup = "RAMET"
ou = "OU=Clones,DC=ad,DC=ramet,DC=test"
ca_file = "$root/srv/ad/tls/ca.pem"
tls = "$root/srv/ad/tls"
secrets = "$root/srv/ad/secrets"
user = "ramet@ad.ramet.test"
password_file = "$root/srv/ad/secrets/ramet"
reader = "reader@ad.ramet.test"
reader_password_file = "$root/srv/ad/secrets/reader"
administrator = "administrator@ad.ramet.test"
administrator_password_file = "$root/srv/ad/secrets/administrator"
exec = ["chroot", "$root"]
host = "/host"
END
status=0
RAMET_TEST_DC=$root/tmp/dc.toml "$@" 3>&- 4<&- || status=$?
exec 3>&-
wait
exit $status
