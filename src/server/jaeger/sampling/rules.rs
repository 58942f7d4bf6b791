//! The strategies file of Jaeger: its text, and what it means for a service.
//!
//! Rules are merged when a service asks, not when the file is read: merged for all services at
//! once, a small file could ask for much memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::strategy::{DEFAULT_PROBABILITY, OperationSampling, Sampler, Strategy};

/// A file's rules. Those of no file are Jaeger's default for everybody.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    default: Rule,
    services: HashMap<Box<str>, Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    sampler: Sampler,
    /// `None`: has no rules for operations. Rules that were dropped are rules.
    operations: Option<Vec<(Arc<str>, f64)>>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            sampler: Sampler::Probabilistic(DEFAULT_PROBABILITY),
            operations: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    default_strategy: Option<FileRule>,
    service_strategies: Option<Vec<FileRule>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FileRule {
    service: String,
    r#type: String,
    param: f64,
    operation_strategies: Option<Vec<FileOperation>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FileOperation {
    operation: String,
    r#type: String,
    param: f64,
}

/// What a text has that is not meant as written, but does not keep it from being used.
pub type Warnings = Vec<String>;

impl Rules {
    /// Reads a file's text; the error says what is wrong and where.
    pub fn parse(text: &str) -> Result<(Self, Warnings), String> {
        // Serde would take a list for an object without its names.
        if text.trim_start().starts_with('[') {
            return Err(
                "is a list; an object with default_strategy and service_strategies is meant".into(),
            );
        }
        let file: Option<File> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let file = file.unwrap_or_default();
        let mut warnings = Warnings::new();
        let mut rules = Self::default();
        if let Some(rule) = file.default_strategy {
            rules.default = rule.read("default_strategy", &mut warnings)?;
        }
        let services = file.service_strategies.unwrap_or_default();
        for (at, rule) in services.into_iter().enumerate() {
            let place = format!("service_strategies[{at}]");
            if rule.service.is_empty() {
                return Err(format!("{place}: `service` is missing"));
            }
            let service = Box::from(rule.service.as_str());
            let rule = rule.read(&place, &mut warnings)?;
            // A service that is named twice has the last rule, as in Jaeger.
            rules.services.insert(service, rule);
        }
        Ok((rules, warnings))
    }

    /// What clients of a service are told.
    pub fn of(&self, service: &str) -> Strategy {
        let Some(rule) = self.services.get(service) else {
            return self.default.strategy(self.default.operations.clone());
        };
        let operations = match (&rule.operations, &self.default.operations) {
            (Some(own), Some(inherited)) => {
                let named: HashSet<&str> = own.iter().map(|(name, _)| &**name).collect();
                let inherited = inherited
                    .iter()
                    .filter(|(name, _)| !named.contains(&**name));
                Some(own.iter().chain(inherited).cloned().collect())
            }
            (Some(own), None) => Some(own.clone()),
            // Clients prefer rules for operations: a limit would not hold any more.
            (None, _) if matches!(rule.sampler, Sampler::RateLimiting(_)) => None,
            (None, inherited) => inherited.clone(),
        };
        rule.strategy(operations)
    }

    /// Services with a rule of their own.
    pub fn services(&self) -> usize {
        self.services.len()
    }
}

impl Rule {
    fn strategy(&self, operations: Option<Vec<(Arc<str>, f64)>>) -> Strategy {
        Strategy {
            sampler: self.sampler,
            operations: operations.map(|operations| OperationSampling {
                default_probability: match self.sampler {
                    Sampler::Probabilistic(rate) => rate,
                    Sampler::RateLimiting(_) => DEFAULT_PROBABILITY,
                },
                lower_bound: 0.0,
                operations,
            }),
        }
    }
}

impl FileRule {
    fn read(self, place: &str, warnings: &mut Warnings) -> Result<Rule, String> {
        let sampler = sampler(&self.r#type, self.param, place, warnings)?;
        let written = self.operation_strategies.unwrap_or_default();
        let mut operations = Vec::with_capacity(written.len());
        let any = !written.is_empty();
        for (at, rule) in written.into_iter().enumerate() {
            let place = format!("{place}.operation_strategies[{at}]");
            match sampler_of(&rule, &place, warnings)? {
                Sampler::Probabilistic(rate) => operations.push((rule.operation.into(), rate)),
                Sampler::RateLimiting(_) => warnings.push(format!(
                    "{place}: operations can be sampled by probability only; left out"
                )),
            }
        }
        Ok(Rule {
            sampler,
            operations: any.then_some(operations),
        })
    }
}

fn sampler_of(
    rule: &FileOperation,
    place: &str,
    warnings: &mut Warnings,
) -> Result<Sampler, String> {
    sampler(&rule.r#type, rule.param, place, warnings)
}

fn sampler(
    kind: &str,
    param: f64,
    place: &str,
    warnings: &mut Warnings,
) -> Result<Sampler, String> {
    match kind {
        "probabilistic" if (0.0..=1.0).contains(&param) => Ok(Sampler::Probabilistic(param)),
        "probabilistic" => Err(format!("{place}: param {param} is not between 0 and 1")),
        "ratelimiting" if (0.0..=f64::from(i32::MAX)).contains(&param) => {
            Ok(Sampler::RateLimiting(param as i32))
        }
        "ratelimiting" => Err(format!(
            "{place}: param {param} is no number of traces per second"
        )),
        other => {
            warnings.push(format!(
                "{place}: type {other:?} is not \"probabilistic\" or \"ratelimiting\"; \
                 probabilistic {DEFAULT_PROBABILITY} is used"
            ));
            Ok(Sampler::Probabilistic(DEFAULT_PROBABILITY))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "default_strategy": {"type": "probabilistic", "param": 0.5, "operation_strategies": [
            {"operation": "/health", "type": "probabilistic", "param": 0.0},
            {"operation": "/metrics", "type": "probabilistic", "param": 0.25}]},
        "service_strategies": [
            {"service": "own", "type": "probabilistic", "param": 0.8, "operation_strategies": [
                {"operation": "op1", "type": "probabilistic", "param": 0.2},
                {"operation": "/health", "type": "probabilistic", "param": 1},
                {"operation": "op3", "type": "ratelimiting", "param": 5}]},
            {"service": "plain", "type": "probabilistic", "param": 0.1},
            {"service": "limited", "type": "ratelimiting", "param": 5.9},
            {"service": "both", "type": "ratelimiting", "param": 7, "operation_strategies": [
                {"operation": "op1", "type": "probabilistic", "param": 0.3}]}]}"#;

    fn parsed(text: &str) -> (Rules, Warnings) {
        Rules::parse(text).expect(text)
    }

    #[track_caller]
    fn check(rules: &Rules, service: &str, sampler: Sampler, operations: Option<(f64, &str)>) {
        let strategy = rules.of(service);
        assert_eq!(strategy.sampler, sampler, "{service}");
        let found = strategy.operations.map(|sampling| {
            assert_eq!(sampling.lower_bound, 0.0);
            let operations = sampling.operations.iter();
            let text: Vec<String> = operations.map(|(o, p)| format!("{o}={p}")).collect();
            (sampling.default_probability, text.join(" "))
        });
        let found = found.as_ref().map(|(rate, text)| (*rate, text.as_str()));
        assert_eq!(found, operations, "{service}");
    }

    #[test]
    fn services_inherit_the_rules_for_operations_that_they_do_not_name() {
        let (rules, warnings) = parsed(FILE);
        let probability = Sampler::Probabilistic;
        check(
            &rules,
            "unknown",
            probability(0.5),
            Some((0.5, "/health=0 /metrics=0.25")),
        );
        check(
            &rules,
            "own",
            probability(0.8),
            Some((0.8, "op1=0.2 /health=1 /metrics=0.25")),
        );
        check(
            &rules,
            "plain",
            probability(0.1),
            Some((0.1, "/health=0 /metrics=0.25")),
        );
        // With rules for operations, clients would not look at the limit.
        check(&rules, "limited", Sampler::RateLimiting(5), None);
        check(
            &rules,
            "both",
            Sampler::RateLimiting(7),
            Some((0.001, "op1=0.3 /health=0 /metrics=0.25")),
        );
        assert_eq!(rules.services(), 4);
        assert_eq!(
            warnings,
            [
                "service_strategies[0].operation_strategies[2]: operations can be sampled by \
              probability only; left out"
            ]
        );
    }

    #[test]
    fn without_a_default_it_is_jaegers() {
        for text in ["{}", "null", r#"{"service_strategies": null}"#] {
            check(&parsed(text).0, "x", Sampler::Probabilistic(0.001), None);
        }
        let (rules, _) = parsed(
            r#"{"service_strategies": [{"service": "a", "type": "probabilistic", "param": 1}]}"#,
        );
        check(&rules, "a", Sampler::Probabilistic(1.0), None);
        check(&rules, "b", Sampler::Probabilistic(0.001), None);
    }

    #[test]
    fn an_unknown_type_is_a_warning_and_one_in_a_thousand() {
        let (rules, warnings) = parsed(
            r#"{"default_strategy": {"type": "const", "param": 1, "operation_strategies":
                [{"operation": "a", "type": "", "param": 1}]}}"#,
        );
        check(
            &rules,
            "x",
            Sampler::Probabilistic(0.001),
            Some((0.001, "a=0.001")),
        );
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("default_strategy: type \"const\" is not "));
    }

    #[test]
    fn rules_that_were_all_dropped_are_rules() {
        let (rules, _) = parsed(
            r#"{"default_strategy": {"type": "probabilistic", "param": 1, "operation_strategies":
                [{"operation": "a", "type": "ratelimiting", "param": 1}]}}"#,
        );
        check(&rules, "x", Sampler::Probabilistic(1.0), Some((1.0, "")));
    }

    #[test]
    fn what_can_not_be_meant_is_an_error_with_its_place() {
        for (text, expected) in [
            ("", "EOF while parsing"),
            ("[]", "is a list"),
            (r#"{"default_strategy": 1}"#, "invalid type"),
            (
                r#"{"service_strategies": [{"type": "probabilistic", "param": 1}]}"#,
                "service_strategies[0]: `service` is missing",
            ),
            (
                r#"{"default_strategy": {"type": "probabilistic", "param": 1.5}}"#,
                "default_strategy: param 1.5 is not between 0 and 1",
            ),
            (
                r#"{"default_strategy": {"type": "ratelimiting", "param": -1}}"#,
                "default_strategy: param -1 is no number of traces per second",
            ),
        ] {
            let error = Rules::parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
