//! The order in which systemd starts units: who has to wait for whom, over all types of units.

use super::units::Units;
use std::collections::BTreeMap;

/// For each unit, those that are started before it.
pub(super) struct Order {
    before: BTreeMap<String, Vec<String>>,
}

impl Order {
    /// The order of all of them, as if all were started at once: which of them will be cannot be seen from files.
    pub(super) fn of(units: &Units) -> Self {
        let mut before: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut add = |first: String, then: String| {
            // A device cannot be made to wait (systemd.device(5)).
            if first != then && !then.ends_with(".device") {
                let firsts = before.entry(then).or_default();
                if !firsts.contains(&first) {
                    firsts.push(first);
                }
            }
        };
        for unit in units.iter() {
            for other in &unit.after {
                add(units.resolve(other), unit.name.clone());
            }
            for other in &unit.before {
                add(unit.name.clone(), units.resolve(other));
            }
            // A target is reached after what it starts, where neither says otherwise (systemd.target(5)).
            if unit.kind() == "target" && !unit.early {
                for other in unit.pulls.iter().filter_map(|name| units.get(name)) {
                    if !other.early && !other.after.contains(&unit.name) {
                        add(other.name.clone(), unit.name.clone());
                    }
                }
            }
        }
        Self { before }
    }

    /// Everything that is started before `goals`, and these. The walk does not go on beyond what `ends` at.
    pub(super) fn walk(&self, units: &Units, goals: &[String], ends: impl Fn(&str) -> bool) -> Walk {
        let goals: Vec<String> = goals.iter().map(|goal| units.resolve(goal)).collect();
        let mut next: BTreeMap<String, String> = BTreeMap::new();
        let mut open = goals.clone();
        while let Some(unit) = open.pop() {
            for first in self.before.get(&unit).into_iter().flatten() {
                if !goals.contains(first) && !next.contains_key(first) {
                    next.insert(first.clone(), unit.clone());
                    if !ends(first) {
                        open.push(first.clone());
                    }
                }
            }
        }
        Walk { goals, next }
    }
}

/// What is started before some goals.
pub(super) struct Walk {
    goals: Vec<String>,
    /// Each, and a unit that is started after it and is nearer to a goal.
    next: BTreeMap<String, String>,
}

impl Walk {
    /// All that was come across, the goals included.
    pub(super) fn units(&self) -> impl Iterator<Item = &String> {
        self.goals.iter().chain(self.next.keys())
    }

    pub(super) fn has(&self, unit: &str) -> bool {
        self.next.contains_key(unit) || self.goals.iter().any(|goal| goal == unit)
    }

    /// The way from `unit` to a goal, without `unit`.
    pub(super) fn way<'w>(&'w self, unit: &str) -> Vec<&'w str> {
        let mut way: Vec<&str> = Vec::new();
        let mut at = self.next.get(unit);
        while let Some(unit) = at {
            way.push(unit);
            at = self.next.get(unit);
        }
        way
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Scope,
        tests::Image,
        units::{self, Units},
    };
    use super::*;

    fn walk(image: &Image, goal: &str, ends: &str) -> (Units, Walk) {
        let units = units::load(&image.root, Scope::Installed).unwrap();
        let walk = Order::of(&units).walk(&units, &[goal.to_owned()], |unit| unit == ends);
        (units, walk)
    }

    #[test]
    fn it_goes_over_all_types_and_aliases() {
        let image = Image::new();
        let early = "DefaultDependencies=no";
        image.unit("a.service", &format!("{early}\nBefore=another-b.service"));
        image.unit("b.service", early);
        image.link("etc/systemd/system/another-b.service", "b.service");
        image.unit("c.swap", &format!("{early}\nAfter=b.service"));
        image.unit("d@.service", &format!("{early}\nAfter=c.swap"));
        image.unit("e.path", &format!("{early}\nAfter=d@x.service"));
        image.file("etc/fstab", "/dev/x /srv/deep xfs x-systemd.requires=e.path\n");
        image.unit("goal.service", &format!("{early}\nRequiresMountsFor=/srv/deep/er"));
        let (_, found) = walk(&image, "goal.service", "");
        let way = ["b.service", "c.swap", "d@.service", "e.path", "srv-deep.mount", "goal.service"];
        assert_eq!(found.way("a.service"), way);
        let (_, found) = walk(&image, "goal.service", "c.swap");
        assert!(found.has("c.swap") && !found.has("b.service"));
    }

    #[test]
    fn what_systemd_orders_by_itself() {
        let image = Image::new();
        image.unit("late.service", "");
        image.unit("some.target", "Wants=late.service");
        image.unit("linked.service", "");
        image.link("etc/systemd/system/some.target.wants/linked.service", "/x/linked.service");
        image.unit("own.target", "DefaultDependencies=no\nWants=late.service");
        let (_, found) = walk(&image, "some.target", "");
        for unit in ["late.service", "linked.service", "basic.target", "sysinit.target"] {
            assert!(found.has(unit), "{unit}");
        }
        assert!(!walk(&image, "own.target", "").1.has("late.service"));
        image.unit("x.socket", "DefaultDependencies=no");
        image.unit("x.service", "DefaultDependencies=no");
        image.unit("x.timer", "");
        let (_, found) = walk(&image, "x.service", "");
        assert!(found.has("x.socket") && !found.has("x.timer"));
    }

    /// systemd: "Dependency Before=... ignored (.device units cannot be delayed)".
    #[test]
    fn devices_are_not_waited_with() {
        let image = Image::new();
        image.unit("a.service", "DefaultDependencies=no\nBefore=dev-x.device");
        image.unit("b.service", "DefaultDependencies=no\nAfter=dev-x.device");
        assert!(!walk(&image, "b.service", "").1.has("a.service"));
        image.unit("a.service", "DefaultDependencies=no\nAfter=b.service\nBefore=b.service");
        assert_eq!(walk(&image, "b.service", "").1.way("a.service"), ["b.service"]);
    }
}
