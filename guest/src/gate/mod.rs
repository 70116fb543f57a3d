//! Which units wait at the gate: all services, but for those that have to start before it or that the image's owner
//! names.
//!
//! A drop-in for the type, `service.d/50-ramet-gate.conf`, holds every service there is or will be, whoever starts it.
//! [`generator`] runs early in each boot and makes the exceptions: a drop-in of the same name in an exempt unit's own
//! directory takes that one's place (systemd.unit(5)). Without the generator everything is held, and [`check`] keeps
//! the agent from opening then.
//!
//! Early services (`DefaultDependencies=no`) are exempt since what the gate itself needs is among them: held, they would
//! wait for the gate and the gate for them. That other generators order units, too, and cannot be seen from here, is
//! why it is decided by that setting and not by the order found. All others are ordered after sysinit.target and
//! basic.target, which the gate does not wait for, so they make no cycle. Should a cycle come about, systemd drops
//! jobs until there is none, and with the gate's all of those that require it: nothing opens.

pub(crate) mod doctor;
pub(crate) mod generator;
pub(crate) mod links;
mod lists;
pub(crate) mod show;
mod unit_file;
mod units;

pub(crate) use unit_file::UnitName;

use crate::{
    boot,
    config::{Config, ConfigError},
    root::{FileError, Root},
};
use std::collections::BTreeMap;
use units::{DROP_IN, Scope, Unit};

/// The drop-in that holds every service, below the root.
const FOR_ALL: &str = "usr/lib/systemd/system/service.d/50-ramet-gate.conf";

/// What would be read in its place.
const SHADOWS: &[&str] = &[
    "etc/systemd/system/service.d/50-ramet-gate.conf",
    "run/systemd/system/service.d/50-ramet-gate.conf",
    "usr/local/lib/systemd/system/service.d/50-ramet-gate.conf",
];

/// There is no telling what is held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("/{0} does not hold services at the gate; put the one of ramet-agent there")]
    NotForAll(&'static str),
    #[error("/{0} takes the place of /{FOR_ALL}, which holds services at the gate; remove it")]
    Shadowed(&'static str),
    #[error(
        "the generator {path} has not run or has failed, so it is not known what is held; run it by hand to see why",
        path = generator::PATH
    )]
    NotGenerated,
}

/// What becomes of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the gate.
    Gate,
    /// It waits.
    Held,
    /// It waits or not, as its own drop-in says, which is here.
    Own { path: String, holds: bool },
    /// It starts before: the image's owner says so.
    Named,
    /// It starts before: `DefaultDependencies=no`.
    Early,
}

impl Verdict {
    fn holds(&self) -> bool {
        match self {
            Self::Held => true,
            Self::Own { holds, .. } => *holds,
            Self::Gate | Self::Named | Self::Early => false,
        }
    }
}

/// Decides for every service, and for every socket that is reached from outside. A socket of this machine's own is let
/// be: who connects waits for its service.
fn plan<'u>(units: &'u BTreeMap<String, Unit>, before_gate: &[UnitName]) -> BTreeMap<&'u str, Verdict> {
    let mut plan = BTreeMap::new();
    for unit in units.values() {
        let name = unit.name.as_str();
        if let Some(verdict) = decide(unit, before_gate.iter().any(|named| named.as_str() == name)) {
            plan.insert(name, verdict);
        }
    }
    plan
}

fn decide(unit: &Unit, named: bool) -> Option<Verdict> {
    if unit.name == boot::UNIT {
        return Some(Verdict::Gate);
    }
    if let Some((path, holds)) = &unit.drop_in {
        return Some(Verdict::Own { path: path.clone(), holds: *holds });
    }
    if named {
        return Some(Verdict::Named);
    }
    let is_way_in =
        std::iter::once(&unit.name).chain(&unit.aliases).any(|name| lists::has(lists::WAYS_IN, name));
    if unit.is_service() {
        Some(if unit.early && !is_way_in { Verdict::Early } else { Verdict::Held })
    } else {
        unit.network.then_some(Verdict::Held)
    }
}

/// The units that would wait, and that `goals` wait for in turn, each with the first goal found: an ordering cycle, where
/// the goals are what the gate waits for.
fn ordered_before<'u>(
    units: &'u BTreeMap<String, Unit>,
    plan: &BTreeMap<&'u str, Verdict>,
    goals: &[String],
) -> Vec<(&'u str, String)> {
    let mut found = Vec::new();
    for (name, verdict) in plan {
        let goal = goals.iter().find(|goal| {
            units[*name].before.contains(*goal) || units.get(*goal).is_some_and(|g| g.after.contains(*name))
        });
        if let Some(goal) = goal.filter(|_| verdict.holds()) {
            found.push((*name, goal.clone()));
        }
    }
    found
}

/// Whether this root holds its services, as far as it can be seen from the files.
pub(crate) fn check(root: &Root) -> Result<(), GateError> {
    if let Some(shadow) = find(root, SHADOWS)? {
        return Err(GateError::Shadowed(shadow));
    }
    if root.read_lossy(FOR_ALL)?.is_some_and(|text| units::holds(&text)) {
        Ok(())
    } else {
        Err(GateError::NotForAll(FOR_ALL))
    }
}

/// Whether the gate holds while this process runs: [`check`], and the generator has done its part.
pub(crate) fn is_sound(root: &Root) -> Result<(), GateError> {
    check(root)?;
    if std::env::var_os(generator::MARK).is_some() { Ok(()) } else { Err(GateError::NotGenerated) }
}

fn find<'p>(root: &Root, paths: &[&'p str]) -> Result<Option<&'p str>, FileError> {
    for path in paths {
        if root.exists(path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What there is and what becomes of it.
struct Survey {
    units: BTreeMap<String, Unit>,
    config: Config,
}

impl Survey {
    fn of(root: &Root, scope: Scope) -> Result<Self, GateError> {
        let mut survey = Self { config: Config::load(root)?, units: units::load(root, scope)? };
        let before_gate = &mut survey.config.before_gate;
        if !links::can_be_early(root, &survey.units, before_gate)? {
            before_gate.retain(|unit| unit.as_str() != links::UNIT);
        }
        Ok(survey)
    }

    fn plan(&self) -> BTreeMap<&str, Verdict> {
        plan(&self.units, &self.config.before_gate)
    }
}

#[cfg(test)]
mod tests;
