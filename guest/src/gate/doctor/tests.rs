use super::super::tests::Image;
use super::*;
use Grade::{Broken, Fatal, Note, Open};

fn grades(image: &Image) -> Vec<(Grade, String)> {
    examine(&image.root).unwrap().into_iter().map(|f| (f.grade, f.what.to_string())).collect()
}

/// An image with nothing to tell.
fn fine() -> Image {
    let image = Image::new();
    image.link(
        "etc/systemd/system/sysinit.target.wants/ramet-agent.service",
        "/usr/lib/systemd/system/ramet-agent.service",
    );
    image.file("etc/machine-id", "uninitialized\n");
    image.file("usr/lib/modules/6.12/modules.builtin", "kernel/fs/ext4/ext4.ko\n");
    image.file("usr/lib/modules/6.12/kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko.xz", "");
    image.file(
        "boot/grub/grub.cfg",
        "set init=none\n\tlinux /vmlinuz root=PARTUUID=1 rw quiet console=ttyS0\n",
    );
    image.unit("dbus.service", "");
    image.unit("systemd-udevd.service", "DefaultDependencies=no");
    image
}

#[test]
fn a_good_image_is_fine() {
    assert_eq!(grades(&fine()), []);
    assert_eq!(run(&fine().root, true).unwrap(), ExitCode::SUCCESS);
}

type Change = (fn(&Image), Grade, &'static str);

/// One change to a good image, and the one thing that is found.
const CHANGES: &[Change] = &[
    (|i| i.file("etc/ramet/agent.toml", "x"), Broken, "agent.toml is not right"),
    (|i| i.file("etc/ramet/agent.toml", "before_gate = [\"getty@.service\"]"), Note, "no such unit"),
    (|i| i.file("etc/ramet/agent.toml", "before_gate = [\"logind.service\"]"), Note, "no such unit"),
    (
        |i| {
            i.link("etc/systemd/system/bus.service", "/usr/lib/systemd/system/dbus.service");
            i.file("etc/ramet/agent.toml", "before_gate = [\"bus.service\"]");
        },
        Note,
        "another name of dbus.service",
    ),
    (|i| i.link("etc/systemd/system/ramet-agent.service", "/dev/null"), Broken, "masked"),
    (|i| i.file("etc/systemd/system/ramet-agent.service", ""), Broken, "masked"),
    (|i| i.file("etc/systemd/system/ramet-agent.service", "[Unit]"), Open, "replaces the agent's unit"),
    (|i| i.file("run/systemd/transient/ramet-agent.service.d/x.conf", ""), Open, "changes the agent's unit"),
    (|i| i.file("etc/systemd/system/ramet-agent.service.d/x.conf", ""), Open, "changes the agent's unit"),
    (|i| i.file("usr/lib/systemd/system/service.d/50-ramet-gate.conf", ""), Open, "does not hold services"),
    (|i| i.file("etc/systemd/system/service.d/50-ramet-gate.conf", ""), Open, "takes the place of"),
    (
        |i| i.link("etc/systemd/system-generators/ramet-gate", "/dev/null"),
        Broken,
        "takes the place of the gen",
    ),
    (
        |i| i.link("etc/systemd/system/a@b.service.d/50-ramet-gate.conf", "/dev/null"),
        Open,
        "lets its unit start",
    ),
    (
        |i| i.link("etc/systemd/system/a-.service.d/50-ramet-gate.conf", "/dev/null"),
        Open,
        "lets its unit start",
    ),
    (|i| i.unit("vendor.service", "DefaultDependencies=no"), Note, ""),
    (
        |i| {
            i.unit("vendor.service", "DefaultDependencies=no\nBefore=local-fs.target");
            i.want("vendor.service");
        },
        Open,
        "vendor.service starts before the gate and is not known to be harmless: it is ordered before local-fs",
    ),
    (
        |i| i.unit("vendor.service", "DefaultDependencies=no\nBefore=local-fs.target"),
        Note,
        "nothing in the image starts them all",
    ),
    (
        |i| {
            i.unit("cloud-x.service", "DefaultDependencies=no\nBefore=local-fs.target");
            i.want("cloud-x.service");
        },
        Broken,
        "will not boot",
    ),
    (
        |i| i.unit("cloud-x.service", "DefaultDependencies=no\nBefore=local-fs.target"),
        Note,
        "started, it is a cycle",
    ),
    (
        |i| {
            i.unit("x.socket", "Before=sockets.target\n[Socket]\nListenStream=22");
            i.want("x.socket");
        },
        Note,
        "the rest of boot waits",
    ),
    (
        |i| {
            i.unit("systemd-homed-firstboot.service", "");
            i.want("systemd-homed-firstboot.service");
        },
        Broken,
        "asks at each child's console",
    ),
    (
        |i| i.file("etc/systemd/system.conf.d/x.conf", "[Manager]\nCrashShell=yes\n"),
        Open,
        "x.conf has CrashShell=yes",
    ),
    (
        |i| {
            i.unit("debug-shell.service", "DefaultDependencies=no");
            i.want("debug-shell.service");
        },
        Note,
        "debug-shell.service is enabled",
    ),
    (|i| i.file("etc/credstore/system.hostname", "golden"), Fatal, "be golden again after a reboot"),
    (|i| i.file("proc/cmdline", "systemd.hostname=golden"), Fatal, "be golden again after a reboot"),
    (|i| i.file("proc/cmdline", "systemd.break=pre-basic"), Open, "in the way of boot"),
    (|i| i.file("usr/lib/sysctl.d/x.conf", "kernel.hostname=golden"), Fatal, "be golden again"),
    (|i| i.file("etc/tmpfiles.d/x.conf", "w /etc/hostname - - - - golden"), Fatal, "at each boot"),
    (
        |i| i.file("usr/share/dbus-1/system-services/x.service", "[D-BUS Service]\nExec=/usr/bin/x\n"),
        Note,
        "has no SystemdService=",
    ),
    (|i| i.file("etc/kernel/cmdline", "root=/dev/vda init=/bin/sh"), Open, "has init=/bin/sh"),
    (|i| i.file("boot/loader/entries/a.conf", "options rd.break\n"), Open, "has rd.break"),
    (|i| i.file("boot/grub2/grub.cfg", " linux /v systemd.mask=ramet-agent.service\n"), Broken, "ever start"),
    (|i| i.file("proc/cmdline", "systemd.unit=rescue.target quiet"), Note, "shells there wait"),
    (
        |i| {
            i.file(
                "etc/systemd/system/getty@tty1.service.d/a.conf",
                "[Service]\nExecStart=-/sbin/agetty --autologin root",
            );
        },
        Note,
        "without a password",
    ),
    (|i| i.file("etc/shadow", "root::19000:0:99999:7:::\n"), Open, "password of root is empty"),
    (
        |i| i.file("usr/lib/sysctl.d/50-default.conf", "# c\n-kernel.sysrq = 0x01b6\n"),
        Note,
        "has 0x01b6 for kernel.sysrq",
    ),
    (|i| i.file("etc/ssh/ssh_host_rsa_key", "k"), Note, "etc/ssh/ssh_host_rsa_key is in the image"),
    (|i| i.file("etc/machine-id", "0123456789abcdef0123456789abcdef"), Note, "etc/machine-id is in"),
    (|i| i.file("etc/krb5.keytab", "k"), Note, "etc/krb5.keytab is in the image"),
    (|i| i.file("usr/lib/modules/5.9/modules.builtin", ""), Broken, "kernel 5.9 has no vmw_vsock"),
];

#[test]
fn each_fault_is_found() {
    for (change, grade, what) in CHANGES {
        let image = fine();
        change(&image);
        let found = grades(&image);
        if what.is_empty() {
            assert_eq!(found, [], "what waits is nothing to tell");
        } else {
            assert!(matches!(&found[..], [(g, w)] if g == grade && w.contains(what)), "{what}: {found:?}");
        }
    }
}

#[test]
fn a_way_in_may_not_be_named() {
    let image = fine();
    image.file("etc/ramet/agent.toml", "before_gate = [\"ssh.service\", \"vendor.service\"]");
    image.unit("ssh.service", "");
    image.unit("vendor.service", "DefaultDependencies=no");
    let found = grades(&image);
    assert!(
        matches!(&found[..], [(Grade::Open, what)] if what.contains("names ssh.service, but it lets somebody in")),
        "{found:?}"
    );
    assert_eq!(run(&image.root, false).unwrap(), ExitCode::FAILURE);
}

#[test]
fn a_child_has_its_own() {
    let image = fine();
    image.file("etc/ssh/ssh_host_ed25519_key", "k");
    image.file("var/lib/ramet-agent/identity.toml", "");
    assert_eq!(grades(&image), []);
}

/// Units that an initrd has, and breakpoints that a parameter starts, are nothing to tell; with their parameter they are.
#[test]
fn what_only_an_initrd_starts_is_nothing_to_tell() {
    let image = fine();
    let initrd =
        "DefaultDependencies=no\nConditionPathExists=/etc/initrd-release\nBefore=systemd-udevd.service";
    image.unit("x-initrd.service", initrd);
    image.unit("breakpoint-pre-udev.service", "DefaultDependencies=no\nBefore=systemd-udevd.service");
    image.unit("breakpoint-pre-basic.service", "DefaultDependencies=no\nBefore=basic.target");
    assert_eq!(grades(&image), []);
    image.want("breakpoint-pre-udev.service");
    let found = grades(&image);
    assert!(matches!(&found[..], [(Broken, what)] if what.contains("will not boot")), "{found:?}");
}

/// F9: what is in the way of networkd only is no cycle: it waits, too.
#[test]
fn a_mount_that_waits_for_a_held_service_is_told() {
    let image = fine();
    image.unit("unlock.service", "");
    image.file("etc/fstab", "/dev/x /data ext4 defaults,x-systemd.requires=unlock.service 0 2\n");
    image.file("usr/lib/systemd/system/local-fs.target", "[Unit]\nDefaultDependencies=no\n");
    let found = grades(&image);
    assert!(
        matches!(&found[..], [(Broken, what)]
            if what.contains("unlock.service waits and is ordered before data.mount, local-fs.target")),
        "{found:?}"
    );
}

/// Whatever is where a file should be, the doctor answers, or says which file it could not read.
#[test]
fn odd_files_end_in_an_answer_or_a_name() {
    type Odd = (&'static str, fn(&Image, &str));
    let odd: &[Odd] = &[
        ("empty", |i, path| i.file(path, "")),
        ("a directory", |i, path| i.file(&format!("{path}/x"), "")),
        ("a link to nowhere", |i, path| i.link(path, "/nowhere/at/all")),
        ("a link out", |i, path| i.link(path, "../../../../../../etc/passwd")),
        ("a link to itself", |i, path| i.link(path, &format!("/{path}"))),
        ("large", |i, path| i.bytes(path, &vec![b'x'; 10 << 20])),
        ("binary", |i, path| i.bytes(path, &(0..=255).cycle().take(9999).collect::<Vec<u8>>())),
    ];
    let paths = [
        "boot/EFI/Linux/x.efi",
        "boot/efi/EFI/x/grub.cfg",
        "boot/grub/grub.cfg",
        "boot/grub/grubenv",
        "boot/loader/credentials/x.cred",
        "boot/loader/entries/x.conf",
        "etc/credstore/system.hostname",
        "etc/default/grub",
        "etc/fstab",
        "etc/gdm3/daemon.conf",
        "etc/kernel/cmdline",
        "etc/lightdm/lightdm.conf",
        "etc/netplan/x.yaml",
        "etc/passwd",
        "etc/shadow",
        "etc/sysctl.d/x.conf",
        "etc/systemd/system/x.service",
        "etc/systemd/system/x.service.d",
        "etc/systemd/system/x.service.d/x.conf",
        "etc/systemd/system/default.target.wants",
        "etc/tmpfiles.d/x.conf",
        "proc/cmdline",
        "sys/firmware/dmi/entries/11-0/raw",
        "usr/share/dbus-1/system-services/x.service",
    ];
    for path in paths {
        for (kind, make) in odd {
            let image = fine();
            let present = image.root.exists(path).unwrap();
            if present {
                image.root.remove(path).unwrap();
            }
            make(&image, path);
            if let Err(error) = examine(&image.root) {
                let told = chain(&error);
                assert!(told.contains(path), "{path} is {kind}: {told}");
            }
        }
    }
}
