//! `ramet verify`

use super::{output, progress};
use anyhow::ensure;
use ramet::{
    child::{self, Child},
    name::Name,
    state::StateDir,
    verify::{self, Finding, Verdict},
};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The children; all that run if none is named
    #[arg(value_name = "CHILD")]
    children: Vec<Name>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct View {
    name: Name,
    findings: Vec<Finding>,
}

/// Exit status 1 if anything is not as recorded.
pub(crate) async fn run(state: &StateDir, args: &Args) -> anyhow::Result<ExitCode> {
    let children = if args.children.is_empty() {
        let found = child::list(state)?.into_iter().filter_map(|(_, child)| child.ok());
        found.filter(|child| child.pid.is_some()).collect()
    } else {
        let found = args.children.iter().map(|name| Child::find(state, name));
        found.collect::<Result<Vec<_>, _>>()?
    };
    for child in &children {
        ensure!(child.pid.is_some(), "{} is not running: ramet start {0}", child.record.name);
    }
    let shown = progress::show();
    let mut views = Vec::new();
    for child in &children {
        shown.progress.say(&format!("asking about {}", child.record.name));
        views.push(View { name: child.record.name.clone(), findings: verify::verify(state, child).await });
    }
    drop(shown);
    let wrong = views.iter().flat_map(|view| &view.findings).any(|one| one.verdict == Verdict::Wrong);
    if args.json {
        output::json(&views)?;
    } else {
        let rows = views.into_iter().flat_map(|View { name, findings }| {
            findings.into_iter().map(move |Finding { seen_by, verdict, detail }| {
                vec![name.to_string(), seen_by.to_owned(), verdict.word().to_owned(), detail]
            })
        });
        output::table(&["NAME", "SEEN BY", "VERDICT", "DETAIL"], rows)?;
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
