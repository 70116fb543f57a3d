//! Which units wait at the gate: all services, but for those that have to start before it or that the image's owner
//! names.
//!
//! A drop-in for the type, `service.d/50-ramet-gate.conf`, holds every service there is or will be, whoever starts it.
//! [`generator`] runs early in each boot and makes the exceptions: a drop-in of the same name in an exempt unit's own
//! directory takes that one's place (systemd.unit(5)). Without the generator everything is held, and [`check`] keeps
//! the agent from opening then.
//!
//! An early service (`DefaultDependencies=no`) may be one that the gate itself needs: held, it would wait for the gate and
//! the gate for it. So it is exempt if it is known to be harmless ([`lists::HARMLESS`]), or if something that the gate
//! waits for is ordered after it ([`Order`]); all others wait, and make no cycle, since nothing that the gate waits for
//! waits for them. What is not early is ordered after sysinit.target and basic.target, which the gate does not wait for.
//! Other generators order units, too, and cannot be seen from here; should a cycle come about all the same, systemd drops
//! jobs until there is none, and with the gate's all of those that require it: nothing opens.

mod command_line;
mod credentials;
mod dbus;
pub(crate) mod doctor;
mod fstab;
pub(crate) mod generator;
mod image;
pub(crate) mod links;
mod lists;
mod logins;
mod order;
mod parameters;
pub(crate) mod show;
pub(crate) mod specifiers;
mod uki;
mod undone;
mod unit;
mod unit_file;
mod units;

pub(crate) use unit_file::UnitName;
pub(crate) use units::Scope;

use crate::{
    boot,
    config::{Config, ConfigError},
    root::{FileError, Root},
};
use doctor::{Findings, finding};
use order::{Order, Walk};
use std::collections::{BTreeMap, BTreeSet};
use unit::{DropIn, Unit};
use units::Units;

/// The drop-in that holds every service, below the root.
const FOR_ALL: &str = "usr/lib/systemd/system/service.d/50-ramet-gate.conf";

/// What would be read in its place: the same below each directory of units that goes before.
fn shadows() -> impl Iterator<Item = String> {
    let before = units::INSTALLED.iter().take_while(|directory| !FOR_ALL.starts_with(**directory));
    before
        .chain(&["run/systemd/generator.early", units::GENERATED])
        .map(|directory| format!("{directory}/service.d/{}", units::FILE))
}

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
    Shadowed(String),
    #[error(
        "the generator {path} has not run or has failed, so it is not known what is held; run it by hand to see why",
        path = generator::PATH
    )]
    NotGenerated,
    #[error("cannot get random bytes for the gate's mark")]
    Nonce(#[source] std::io::Error),
}

/// What becomes of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the gate.
    Gate,
    /// It waits.
    Held(Held),
    /// It waits or not, as its own drop-in says.
    Own(DropIn),
    /// It starts before: the image's owner says so.
    Named,
    /// It starts before: it is early and known to be harmless, for this reason.
    Harmless(&'static str),
    /// It starts before: it is early, and started only as the machine's run ends.
    Ends,
    /// It starts before without being known: it is early, and the gate waits for what is ordered after it, this first.
    Needed(String),
}

/// Why a unit waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// All do.
    AsAll,
    /// It is a socket that is reached from outside.
    Network,
    /// It starts early, but for this reason it must not.
    WayIn(&'static str),
    /// It starts early, and nothing is known of it.
    Unknown,
}

impl Verdict {
    fn holds(&self) -> bool {
        match self {
            Self::Held(_) => true,
            Self::Own(drop_in) => drop_in.holds,
            Self::Gate | Self::Named | Self::Harmless(_) | Self::Ends | Self::Needed(_) => false,
        }
    }
}

/// What becomes of each service, and of each socket that is reached from outside. A socket of this machine's own is let
/// be: who connects waits for its service.
struct Plan {
    verdicts: BTreeMap<String, Verdict>,
    /// What the gate is started after.
    before: Walk,
}

impl Plan {
    fn of(units: &Units, order: &Order, before_gate: &[UnitName]) -> Self {
        let enders = only_at_the_end(units);
        let mut verdicts = BTreeMap::new();
        for unit in units.iter() {
            let named = before_gate.iter().any(|named| named.as_str() == unit.name);
            if let Some(verdict) = decide(unit, named, enders.contains(unit.name.as_str())) {
                verdicts.insert(unit.name.clone(), verdict);
            }
        }
        // An instance that has no file of its own.
        for named in before_gate.iter().map(UnitName::as_str) {
            if units.get(named).is_some_and(|unit| Some(&unit.name) == unit_file::template(named).as_ref()) {
                verdicts.insert(named.to_owned(), Verdict::Named);
            }
        }
        let ends = |unit: &str| match verdicts.get(unit) {
            Some(Verdict::Held(Held::Unknown)) | None => false,
            Some(verdict) => verdict.holds() || *verdict == Verdict::Gate,
        };
        let before = order.walk(units, &generator::waits_for(), ends);
        for (name, verdict) in &mut verdicts {
            if *verdict == Verdict::Held(Held::Unknown) && before.has(name) {
                let by = before.way(name).first().copied().unwrap_or(boot::UNIT).to_owned();
                *verdict = Verdict::Needed(by);
            }
        }
        Self { verdicts, before }
    }

    /// The units that wait, or are the gate, and that the gate waits for in turn: an ordering cycle.
    fn cycles(&self) -> impl Iterator<Item = &String> {
        self.before
            .units()
            .filter(|unit| self.verdicts.get(*unit).is_some_and(|v| v.holds() || *v == Verdict::Gate))
    }
}

fn decide(unit: &Unit, named: bool, ends: bool) -> Option<Verdict> {
    if unit.name == boot::UNIT {
        return Some(Verdict::Gate);
    }
    if let Some(drop_in) = &unit.drop_in {
        return Some(Verdict::Own(drop_in.clone()));
    }
    if named {
        return Some(Verdict::Named);
    }
    if !unit.is_service() {
        return unit.network.then_some(Verdict::Held(Held::Network));
    }
    if !unit.early {
        return Some(Verdict::Held(Held::AsAll));
    }
    let way_in =
        std::iter::once(&unit.name).chain(&unit.aliases).find_map(|name| lists::why(lists::WAYS_IN, name));
    Some(match (way_in, lists::why(lists::HARMLESS, &unit.name)) {
        (Some(why), _) => Verdict::Held(Held::WayIn(why)),
        (None, Some(why)) => Verdict::Harmless(why),
        (None, None) if ends => Verdict::Ends,
        (None, None) => Verdict::Held(Held::Unknown),
    })
}

/// The units that are started by nothing but what ends the machine's run. Held, they would have to be started while the
/// gate is being stopped, and be left out.
fn only_at_the_end(units: &Units) -> BTreeSet<&str> {
    let (mut ends, mut others) = (BTreeSet::new(), BTreeSet::new());
    for unit in units.iter() {
        let is_end = lists::ENDS.contains(&unit.name.as_str());
        let pulled = unit.pulls.iter().filter_map(|name| units.get(name)).map(|unit| unit.name.as_str());
        if is_end { ends.extend(pulled) } else { others.extend(pulled) }
    }
    ends.into_iter().filter(|name| !others.contains(name)).collect()
}

/// Whether this root holds its services, as far as it can be seen from the files.
pub(crate) fn check(root: &Root) -> Result<(), GateError> {
    for shadow in shadows() {
        if root.exists(&shadow)? {
            return Err(GateError::Shadowed(shadow));
        }
    }
    if root.read_lossy(FOR_ALL)?.is_some_and(|text| unit::holds(&text)) {
        Ok(())
    } else {
        Err(GateError::NotForAll(FOR_ALL))
    }
}

/// Whether the gate holds while this process runs: [`check`], and the generator has done its part. That is so if systemd
/// has read what it wrote: its mark of this boot is in this process's environment.
pub(crate) fn is_sound(root: &Root) -> Result<(), GateError> {
    check(root)?;
    let mark = std::env::var(generator::MARK).ok();
    if is_marked(root, mark.as_deref())? { Ok(()) } else { Err(GateError::NotGenerated) }
}

fn is_marked(root: &Root, mark: Option<&str>) -> Result<bool, FileError> {
    let written = root.read_lossy(generator::NONCE)?;
    Ok(mark.is_some_and(|mark| !mark.is_empty()) && mark == written.as_deref())
}

/// What there is and what becomes of it.
struct Survey {
    units: Units,
    order: Order,
    config: Config,
    plan: Plan,
    /// What boot starts.
    started: BTreeSet<String>,
}

impl Survey {
    fn of(root: &Root, scope: Scope) -> Result<Self, GateError> {
        let mut config = Config::load(root)?;
        let units = units::load(root, scope)?;
        let order = Order::of(&units);
        if !links::can_be_early(root, &units, &order, &config.before_gate)? {
            config.before_gate.retain(|unit| unit.as_str() != links::UNIT);
        }
        let plan = Plan::of(&units, &order, &config.before_gate);
        // What the gate waits for is there in any case, or not waited for.
        let goals = generator::waits_for();
        let from: Vec<&str> = ["default.target", "sysinit.target"]
            .into_iter()
            .chain(goals.iter().map(String::as_str))
            .collect();
        let started = units.closure(&from, |unit| {
            let lists = [&unit.pulls, &unit.triggers];
            lists.into_iter().flatten().collect()
        });
        Ok(Self { units, order, config, plan, started })
    }

    /// Whether boot starts the unit: it is wanted by what is wanted, from default.target on, or is triggered by that. What
    /// other programs start, udev among them, is not seen.
    fn is_started(&self, unit: &str) -> bool {
        self.started.contains(&self.units.resolve(unit))
    }

    /// Whether boot starts the unit, and all that is between it and what the gate waits for. Devices come by themselves.
    fn are_started(&self, unit: &str) -> bool {
        let way = self.plan.before.way(unit);
        self.is_started(unit) && way.iter().all(|unit| unit.ends_with(".device") || self.is_started(unit))
    }

    fn verdict(&self, unit: &str) -> Option<&Verdict> {
        self.plan.verdicts.get(&self.units.resolve(unit))
    }
}

#[cfg(test)]
mod tests;
