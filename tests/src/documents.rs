//! That the documents are about what there is.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const IDENTITY: &str = include_str!("../../docs/identity.md");

/// What a row of docs/identity.md may say of itself.
const STATUS: [&str; 4] = ["done", "untested", "named", "left"];

/// A row of a table of hazards.
struct Row {
    hazard: &'static str,
    tests: Vec<&'static str>,
    status: &'static str,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in IDENTITY.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let ["", hazard, _, tests, status, ""] = cells[..] else { continue };
        if hazard != "hazard" && !hazard.starts_with("---") {
            let tests = tests.split('`').skip(1).step_by(2).collect();
            rows.push(Row { hazard, tests, status });
        }
    }
    rows
}

/// Every source file of the workspace's members, by its path.
fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = BTreeMap::new();
    let mut folders: Vec<_> =
        ["guest", "host", "proto", "tests"].iter().map(|member| root.join(member)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
}

/// Whether `name` is a test: a function in a module of that name, or a case that is called so.
fn exists(name: &str, sources: &BTreeMap<PathBuf, String>) -> bool {
    let case = format!("\"{name}\"");
    let Some((modules, function)) = name.rsplit_once("::") else { return false };
    let function = format!("fn {function}(");
    // The last that is a file or a folder.
    let Some(module) = modules.split("::").filter(|module| *module != "tests").last() else { return false };
    sources.iter().any(|(path, text)| {
        let is_module = path.file_stem().is_some_and(|stem| stem == module)
            || path.components().any(|part| part.as_os_str() == module);
        text.contains(&case) || (is_module && text.contains(&function))
    })
}

#[test]
fn every_row_of_the_hazards_names_tests_that_are_there() {
    let sources = sources();
    let rows = rows();
    assert!(rows.len() >= 60, "{} rows", rows.len());
    for Row { hazard, tests, status } in &rows {
        assert!(STATUS.contains(status), "{hazard}: {status}");
        assert!(*status != "done" || !tests.is_empty(), "{hazard}: done, and no test says so");
        for test in tests {
            assert!(exists(test, &sources), "{hazard}: there is no test {test}");
        }
    }
    // Not in one piece, or it would be found here.
    assert!(!exists(&["apply", "ssh", "tests", "there_is_no_such_test"].join("::"), &sources));
}
