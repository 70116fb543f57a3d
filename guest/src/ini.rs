//! Files of sections and settings, as systemd and `NetworkManager` have them (systemd.syntax(7), NetworkManager.conf(5)).

/// A setting: its section, its name, its value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) section: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// The settings of a file, in its order. A line that is none is passed over, as both do.
pub(crate) fn settings(text: &str) -> Vec<Setting> {
    let mut section = String::new();
    let mut found = Vec::new();
    let mut line = String::new();
    for part in text.lines() {
        let trimmed = part.trim();
        // A comment may also stand within a continued line.
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(begun) = trimmed.strip_suffix('\\') {
            line.push_str(begun);
            line.push(' ');
            continue;
        }
        line.push_str(trimmed);
        let whole = std::mem::take(&mut line);
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            found.push(Setting {
                section: section.clone(),
                key: key.trim_end().into(),
                value: value.trim().into(),
            });
        }
    }
    found
}

/// A boolean (systemd.syntax(7)); `None` is what both would pass over.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}
