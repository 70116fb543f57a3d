//! Which children a fork makes: names and identities, before anything happens.

use crate::{
    identity::{ChildIdentity, IdentityError, IdentityFile, InUse, complete},
    name::{InvalidName, Name},
};
use ramet_proto::{InstanceId, domain::DomainAccount};

/// How many children, and how they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// One, by this name.
    One(Name),
    /// So many, called `PREFIX-1`, `PREFIX-2` and so on; numbers that are taken are left out. Without a prefix they are
    /// called after the template.
    Count(usize, Option<Name>),
}

impl Naming {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Count(count, _) => *count,
        }
    }
}

/// Why children cannot be called as asked.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The name is taken.
    #[error("there is a child {0} already: choose another name or remove it (ramet rm {0})")]
    Taken(Name),
    /// A number behind the prefix makes no name.
    #[error("the prefix is too long")]
    Name(#[from] InvalidName),
    /// An identity cannot be as asked.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What is known of a child before it has its identity.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How it is called.
    pub name: Name,
    /// What its identity has to be.
    pub identity: IdentityFile,
    /// Names the individual that it will be.
    pub instance_id: InstanceId,
    /// The computer account that is leased to it.
    pub domain: Option<DomainAccount>,
}

/// The children to be made, with `nics` NICs each. `in_use` is who has what before.
pub fn plan(
    nics: usize,
    asked: Vec<Asked>,
    mut in_use: InUse,
) -> Result<Vec<(Name, ChildIdentity)>, PlanError> {
    let mut planned = Vec::new();
    for Asked { name, identity, instance_id, domain } in asked {
        let identity = complete(&name, nics, &identity, &in_use)?;
        let identity = ChildIdentity { instance_id, domain, ..identity };
        in_use.children.push((name.clone(), identity.clone()));
        planned.push((name, identity));
    }
    Ok(planned)
}

/// How the children are called.
pub fn names(
    template: &Name,
    naming: &Naming,
    taken: &[Name],
    in_use: &InUse,
) -> Result<Vec<Name>, PlanError> {
    let is_taken = |name: &Name| taken.iter().any(|other| other.same(name));
    // A generated host name is the child's name, and may be one that an identity file has given to another.
    let is_a_hostname = |name: &Name| {
        in_use.children.iter().any(|(_, other)| other.hostname.as_str().eq_ignore_ascii_case(name.as_str()))
    };
    match naming {
        Naming::One(name) if is_taken(name) => Err(PlanError::Taken(name.clone())),
        Naming::One(name) => Ok(vec![name.clone()]),
        Naming::Count(count, prefix) => {
            let prefix = prefix.as_ref().unwrap_or(template);
            let numbered = (1_usize..).map(|number| format!("{prefix}-{number}").parse::<Name>());
            let free = numbered
                .filter(|name| !name.as_ref().is_ok_and(|name| is_taken(name) || is_a_hostname(name)));
            Ok(free.take(*count).collect::<Result<_, _>>()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn called(naming: &Naming, taken: &[Name]) -> Result<Vec<String>, PlanError> {
        let names = names(&name("debian"), naming, taken, &InUse::default())?;
        Ok(names.into_iter().map(String::from).collect())
    }

    fn asked(names: Vec<Name>, identity: &IdentityFile) -> Vec<Asked> {
        let asked = |name| Asked {
            name,
            identity: identity.clone(),
            instance_id: InstanceId::random(),
            domain: None,
        };
        names.into_iter().map(asked).collect()
    }

    #[test]
    fn numbers_that_are_taken_are_left_out() {
        let taken = [name("debian-1"), name("Web-2")];
        assert_eq!(called(&Naming::Count(2, None), &taken).unwrap(), ["debian-2", "debian-3"]);
        assert_eq!(called(&Naming::Count(2, Some(name("web"))), &taken).unwrap(), ["web-1", "web-3"]);
        assert!(matches!(called(&Naming::One(name("web-2")), &taken), Err(PlanError::Taken(_))));
    }

    #[test]
    fn a_prefix_must_leave_room_for_the_number() {
        let long = name(&"x".repeat(61));
        assert!(called(&Naming::Count(9, Some(long.clone())), &[]).is_ok());
        assert!(matches!(called(&Naming::Count(10, Some(long)), &[]), Err(PlanError::Name(_))));
    }

    #[test]
    fn one_identity_cannot_be_given_to_two() {
        let file = IdentityFile { hostname: Some("web-1".parse().unwrap()), ..IdentityFile::default() };
        let twice = asked(vec![name("web-1"), name("web-2")], &file);
        let error = plan(1, twice, InUse::default()).unwrap_err();
        assert!(matches!(error, PlanError::Identity(IdentityError::HostnameInUse { .. })));
    }

    proptest! {
        #[test]
        fn no_two_children_are_alike(count in 1_usize..40, nics in 0_usize..4) {
            let naming = Naming::Count(count, None);
            let names = names(&name("debian"), &naming, &[], &InUse::default()).unwrap();
            let children = plan(nics, asked(names, &IdentityFile::default()), InUse::default()).unwrap();
            prop_assert_eq!(children.len(), count);
            let distinct = |of: &dyn Fn(&ChildIdentity) -> Vec<String>, each: usize| {
                children.iter().flat_map(|(_, identity)| of(identity)).collect::<HashSet<_>>().len() == count * each
            };
            prop_assert!(distinct(&|identity| vec![identity.hostname.to_string()], 1));
            prop_assert!(distinct(&|identity| vec![identity.machine_id.to_string()], 1));
            prop_assert!(distinct(&|identity| vec![identity.machine_sid.to_string()], 1));
            prop_assert!(distinct(&|identity| identity.macs.iter().map(ToString::to_string).collect(), nics));
        }
    }
}
