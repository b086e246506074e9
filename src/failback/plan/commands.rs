//! What a plan says of the operator's programs.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use super::Controller;
use super::validate::Check;
use crate::error::Result;
use crate::failback::vm::VERBS;

impl Check<'_> {
    /// The controller of a site whose VMs the operator's programs control.
    pub(super) fn commands(
        &self,
        key: &str,
        at: usize,
        verbs: BTreeMap<Spanned<String>, Vec<String>>,
        default: Option<Vec<String>>,
        time_limit: Duration,
    ) -> Result<Controller> {
        let named = |argv: &[String]| argv.first().is_some_and(|program| !program.is_empty());
        let mut known = BTreeMap::new();
        for (verb, argv) in verbs {
            let key = format!("{key}.verbs.{}", verb.get_ref());
            if !VERBS.contains(&&verb.get_ref()[..]) {
                let all = VERBS.join(", ");
                let why = format!("there is no such verb; there are {all}");
                return Err(self.wrong(&key, verb.span().start, why));
            }
            if !named(&argv) {
                return Err(self.wrong(&key, verb.span().start, "no program is named"));
            }
            known.insert(verb.into_inner(), argv);
        }
        if default.as_deref().is_some_and(|argv| !named(argv)) {
            return Err(self.wrong(&format!("{key}.program"), at, "no program is named"));
        }
        let missing = VERBS.iter().find(|verb| !known.contains_key(**verb));
        if let (None, Some(verb)) = (&default, missing) {
            let why = format!("no program for the verb `{verb}`, and no `program` for all");
            return Err(self.wrong(key, at, why));
        }
        Ok(Controller::Commands {
            verbs: known,
            default,
            time_limit,
        })
    }
}
