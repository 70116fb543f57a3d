//! Settings as smb.conf(5) and sssd.conf(5) have them: sections in brackets, and lines `name = value`. Files are bytes; a line
//! that is no setting is passed over.

/// A setting. Names are compared without case, and without blanks, as Samba does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// In lower case; empty before the first section.
    pub(super) section: String,
    /// In lower case and without blanks.
    pub(super) name: String,
    /// Without blanks and quotation marks around it.
    pub(super) value: Vec<u8>,
}

/// The settings in `bytes`, in their order. Those before the first section are of `section`.
pub(super) fn settings(bytes: &[u8], section: &str) -> Vec<Setting> {
    let mut section = section.to_owned();
    let mut settings = Vec::new();
    for line in lines(bytes) {
        let line = line.trim_ascii();
        match line.first() {
            None | Some(b'#' | b';') => {}
            Some(b'[') => {
                let end = line.iter().position(|byte| *byte == b']').unwrap_or(line.len());
                section = lower(line[1..end].trim_ascii());
            }
            Some(_) => {
                let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
                let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
                let bare: Vec<u8> = name.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
                let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
                let value = quoted.filter(|value| !value.contains(&b'"')).unwrap_or(value).to_vec();
                settings.push(Setting { section: section.clone(), name: lower(&bare), value });
            }
        }
    }
    settings
}

fn lower(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_ascii_lowercase()
}

/// Lines; one that ends in a backslash goes on in the next (smb.conf(5), "FILE FORMAT").
fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut open = None::<Vec<u8>>;
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii_end();
        let mut whole = open.take().unwrap_or_default();
        if let Some(start) = line.strip_suffix(b"\\") {
            whole.extend_from_slice(start);
            open = Some(whole);
        } else {
            whole.extend_from_slice(line);
            lines.push(whole);
        }
    }
    lines.extend(open);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn settings_are_read_as_samba_and_sssd_read_them() {
        let text = b"\xef\xbb\xbf# B\xfcro\n; x = y\nfirst = 1\n[ Global ]\n Private  DIR =  /a b \nx=\n\tno setting\n\
                     kerberos\\\n method = \\\n dedicated keytab\n[domain/AD]\r\nkrb5_keytab = \"/etc/k\"\r\nq = \"a\", \"b\"";
        let shown: Vec<_> = settings(text, "before")
            .into_iter()
            .map(|one| format!("{}|{}|{}", one.section, one.name, one.value.escape_ascii()))
            .collect();
        assert_eq!(
            shown,
            [
                "before|first|1",
                "global|privatedir|/a b",
                "global|x|",
                "global|kerberosmethod|dedicated keytab",
                "domain/ad|krb5_keytab|/etc/k",
                "domain/ad|q|\\\"a\\\", \\\"b\\\"",
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = settings(&bytes, "");
        }
    }
}
