//! Identities from a file: CSV with a header, or TOML.

use super::{Draft, NewEntry, PoolError, Store};
use crate::{
    fs::{AtPath, FsError},
    name::Name,
};
use ramet_proto::{Hostname, MacAddr, Sid};
use serde::Deserialize;
use std::{
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// The most bytes of a file: a hundred thousand identities.
const MAX_FILE: u64 = 16 << 20;

/// The columns of a CSV file. The first is needed.
const COLUMNS: [&str; 3] = ["hostname", "macs", "machine_sid"];

/// Why identities cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The file is larger than any list of identities.
    #[error("{} is larger than {MAX_FILE} bytes: import it in parts", .0.display())]
    TooLarge(PathBuf),
    /// The file is neither.
    #[error("{} is neither .csv nor .toml: name it so", .0.display())]
    Form(PathBuf),
    /// It is not CSV.
    #[error("{} is not CSV (RFC 4180)", path.display())]
    Csv {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: csv::Error,
    },
    /// It is not TOML, or does not say what it may say.
    #[error("{} is not a list of [[identity]]", path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Something in it is wrong.
    #[error("nothing was imported from {}:\n  {}", path.display(), problems.join("\n  "))]
    Bad {
        /// Which file.
        path: PathBuf,
        /// Each with its place.
        problems: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Where in the file an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Line(u64),
    Entry(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Entry(number) => write!(f, "[[identity]] number {number}"),
        }
    }
}

/// The identities of a file, read and each by itself checked.
#[derive(Debug)]
pub struct ImportFile {
    path: PathBuf,
    places: Vec<Place>,
    drafts: Vec<Draft>,
}

impl ImportFile {
    /// Reads `path`.
    ///
    /// ```csv
    /// hostname,macs,machine_sid
    /// vdi-1,52:54:01:00:00:01 52:54:01:00:00:02,S-1-5-21-1-2-3
    /// vdi-2,,
    /// ```
    ///
    /// ```toml
    /// [[identity]]
    /// hostname = "vdi-1"
    /// macs = ["52:54:01:00:00:01", "52:54:01:00:00:02"]
    /// machine_sid = "S-1-5-21-1-2-3"
    /// ```
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        let mut text = String::new();
        let file = File::open(path).at("read", path)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).at("read", path)?;
        if text.len() as u64 > MAX_FILE {
            return Err(ImportError::TooLarge(path.to_owned()));
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let read = match extension.to_ascii_lowercase().as_str() {
            "csv" => from_csv(&text).map_err(|source| ImportError::Csv { path: path.to_owned(), source })?,
            "toml" => from_toml(&text)
                .map_err(|source| ImportError::Toml { path: path.to_owned(), source: Box::new(source) })?,
            _ => return Err(ImportError::Form(path.to_owned())),
        };
        let mut file = Self { path: path.to_owned(), places: Vec::new(), drafts: Vec::new() };
        let mut problems = Vec::new();
        for (place, draft) in read {
            match draft {
                Ok(draft) => {
                    file.places.push(place);
                    file.drafts.push(draft);
                }
                Err(problem) => problems.push(format!("{place}: {problem}")),
            }
        }
        if problems.is_empty() && file.drafts.is_empty() {
            problems.push("it has no identity".to_owned());
        }
        if problems.is_empty() { Ok(file) } else { Err(ImportError::Bad { path: file.path, problems }) }
    }

    /// Adds the identities to `pool`, all or none; with `dry_run` none, but it says whether it would.
    pub async fn add_to(
        &self,
        store: &Store,
        pool: &Name,
        dry_run: bool,
    ) -> Result<Vec<NewEntry>, ImportError> {
        let added =
            if dry_run { store.check(pool, &self.drafts).await } else { store.add(pool, &self.drafts).await };
        added.map_err(|error| match error {
            PoolError::Conflicts(conflicts) => ImportError::Bad {
                path: self.path.clone(),
                problems: conflicts
                    .iter()
                    .map(|(at, conflict)| format!("{}: {conflict}", self.places[*at]))
                    .collect(),
            },
            other => other.into(),
        })
    }
}

type Read = Vec<(Place, Result<Draft, String>)>;

fn from_csv(text: &str) -> Result<Read, csv::Error> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let column = |name| header.iter().position(|column| column == name);
    let unknown = header.iter().find(|column| !COLUMNS.contains(column));
    let problem = match (unknown, column("hostname")) {
        (Some(unknown), _) => Some(format!("the column {unknown:?} is none of {}", COLUMNS.join(", "))),
        (None, None) => Some("there is no column hostname".to_owned()),
        (None, Some(_)) => None,
    };
    if let Some(problem) = problem {
        return Ok(vec![(Place::Line(1), Err(problem))]);
    }
    let mut read = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, |position| line_at(text, position));
        let field = |name| column(name).and_then(|at| record.get(at)).filter(|field| !field.is_empty());
        let [hostname, macs, machine_sid] = COLUMNS.map(field);
        read.push((Place::Line(line), draft(hostname.unwrap_or_default(), macs, machine_sid)));
    }
    Ok(read)
}

/// The line of a record. The reader's position is before the blank lines that it skips.
fn line_at(text: &str, position: &csv::Position) -> u64 {
    let start = usize::try_from(position.byte()).ok().and_then(|byte| text.get(byte..)).unwrap_or_default();
    let blank = start.bytes().take_while(|byte| b"\r\n".contains(byte)).filter(|byte| *byte == b'\n');
    position.line() + blank.count() as u64
}

fn draft(hostname: &str, macs: Option<&str>, machine_sid: Option<&str>) -> Result<Draft, String> {
    let macs = macs.map(|macs| macs.split_whitespace().map(str::parse::<MacAddr>).collect::<Result<_, _>>());
    let machine_sid = machine_sid.map(str::parse).transpose().map_err(told)?;
    checked(Draft {
        hostname: hostname.parse().map_err(told)?,
        macs: macs.transpose().map_err(told)?,
        machine_sid,
    })
}

fn from_toml(text: &str) -> Result<Read, toml::de::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        #[serde(default)]
        identity: Vec<One>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct One {
        hostname: Hostname,
        macs: Option<Vec<MacAddr>>,
        machine_sid: Option<Sid>,
    }
    let List { identity } = toml::from_str(text)?;
    let drafts =
        identity.into_iter().map(|One { hostname, macs, machine_sid }| Draft { hostname, macs, machine_sid });
    Ok(drafts.enumerate().map(|(at, draft)| (Place::Entry(at + 1), checked(draft))).collect())
}

fn checked(draft: Draft) -> Result<Draft, String> {
    match &draft.machine_sid {
        Some(sid) if !sid.is_machine() => {
            Err(format!("{sid} is not a machine's SID: it must be S-1-5-21 and three numbers"))
        }
        _ => Ok(draft),
    }
}

fn told(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<ImportFile, ImportError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        ImportFile::read(&path)
    }

    #[test]
    fn both_forms_say_the_same() {
        let csv = "hostname, macs, machine_sid\nvdi-1,52:54:01:00:00:01  52:54:01:00:00:02,S-1-5-21-1-2-3\n\nvdi-2,,\n";
        let toml = "[[identity]]\nhostname = \"vdi-1\"\nmacs = [\"52:54:01:00:00:01\", \"52:54:01:00:00:02\"]\n\
                    machine_sid = \"S-1-5-21-1-2-3\"\n[[identity]]\nhostname = \"vdi-2\"\n";
        let (csv, toml) = (read("a.csv", csv).unwrap(), read("a.TOML", toml).unwrap());
        assert_eq!(csv.drafts, toml.drafts);
        assert_eq!(csv.places, [Place::Line(2), Place::Line(4)]);
        assert_eq!(csv.drafts[0].macs.as_ref().unwrap().len(), 2);
        assert_eq!(csv.drafts[1].macs, None);
    }

    #[test]
    fn every_problem_has_its_place() {
        let csv = "hostname,macs,machine_sid\nvdi-1,,\nvdi_2,,\nvdi-3,01:00:5e:00:00:01,\nvdi-4,,S-1-5-32-544\n,,\n";
        let error = read("a.csv", csv).unwrap_err();
        let ImportError::Bad { problems, .. } = &error else { panic!("{error}") };
        let places: Vec<_> = problems.iter().map(|problem| problem.split(':').next().unwrap()).collect();
        assert_eq!(places, ["line 3", "line 4", "line 5", "line 6"]);
        for (name, text, why) in [
            ("a.csv", "name\nx\n", "line 1: the column \"name\" is none of hostname, macs, machine_sid"),
            ("a.csv", "macs\n\n", "line 1: there is no column hostname"),
            ("a.csv", "hostname\n", "it has no identity"),
            ("a.csv", "hostname,macs\nx\n", "line: 2"),
            ("a.toml", "[[identity]]\nhostname = \"a_b\"", "line 2"),
            ("a.toml", "[[identity]]\nhostnam = \"a\"", "unknown field"),
            ("a.toml", "[[identity]]\nhostname = \"a\"\nmachine_sid = \"S-1-5-9\"", "[[identity]] number 1"),
            ("a.txt", "", "neither .csv nor .toml"),
        ] {
            let told = crate::chain(&read(name, text).unwrap_err());
            assert!(told.contains(why), "{text:?}: {told}");
        }
    }
}
