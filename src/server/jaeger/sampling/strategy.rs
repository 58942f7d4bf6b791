//! What a client is told, and how that is written: JSON with Thrift's names, protobuf.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::protocol::wire::jaeger::api_v2;

/// Without a better rule one trace in a thousand, as Jaeger has it.
pub const DEFAULT_PROBABILITY: f64 = 0.001;

/// How a service samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    /// Of every operation, for clients that know no others.
    pub sampler: Sampler,
    /// Clients that can go by these alone.
    pub operations: Option<OperationSampling>,
}

/// A way to decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    /// Probability of each trace, 0 to 1.
    Probabilistic(f64),
    /// Traces per second; 32 bits over gRPC, 16 in Thrift's JSON.
    RateLimiting(i32),
}

/// Probabilities by the name of a trace's first operation.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationSampling {
    /// Of operations that are not named.
    pub default_probability: f64,
    /// Traces per second that each operation gets in any case.
    pub lower_bound: f64,
    pub operations: Vec<(Arc<str>, f64)>,
}

impl Default for Strategy {
    fn default() -> Self {
        Self::from(Sampler::Probabilistic(DEFAULT_PROBABILITY))
    }
}

impl From<Sampler> for Strategy {
    fn from(sampler: Sampler) -> Self {
        Self {
            sampler,
            operations: None,
        }
    }
}

/// How a strategy's type is spelled: clients before 2017 know only its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    Name,
    Number,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    strategy_type: Type,
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilistic_sampling: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiting_sampling: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_sampling: Option<Operations<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Type {
    Name(&'static str),
    Number(u8),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rate {
    #[serde(serialize_with = "number")]
    sampling_rate: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Limit {
    max_traces_per_second: i16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Operations<'a> {
    #[serde(serialize_with = "number")]
    default_sampling_probability: f64,
    #[serde(serialize_with = "number")]
    default_lower_bound_traces_per_second: f64,
    per_operation_strategies: Vec<Operation<'a>>,
    /// No client reads it, and Jaeger always has it.
    default_upper_bound_traces_per_second: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Operation<'a> {
    operation: &'a str,
    probabilistic_sampling: Rate,
}

/// As Go writes it: whole numbers without a fraction.
fn number<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        to.serialize_i64(*value as i64)
    } else {
        to.serialize_f64(*value)
    }
}

impl Strategy {
    /// Thrift's JSON; the text says what it can't hold.
    pub fn json(&self, spelling: Spelling) -> Result<String, String> {
        let (name, code) = match self.sampler {
            Sampler::Probabilistic(_) => ("PROBABILISTIC", 0),
            Sampler::RateLimiting(_) => ("RATE_LIMITING", 1),
        };
        let mut written = Written {
            strategy_type: match spelling {
                Spelling::Name => Type::Name(name),
                Spelling::Number => Type::Number(code),
            },
            probabilistic_sampling: None,
            rate_limiting_sampling: None,
            operation_sampling: None,
        };
        match self.sampler {
            Sampler::Probabilistic(sampling_rate) => {
                written.probabilistic_sampling = Some(Rate { sampling_rate });
            }
            Sampler::RateLimiting(traces) => {
                let max_traces_per_second = i16::try_from(traces)
                    .map_err(|_| format!("maxTracesPerSecond {traces} is higher than int16"))?;
                written.rate_limiting_sampling = Some(Limit {
                    max_traces_per_second,
                });
            }
        }
        if let Some(sampling) = &self.operations {
            written.operation_sampling = Some(Operations {
                default_sampling_probability: sampling.default_probability,
                default_lower_bound_traces_per_second: sampling.lower_bound,
                per_operation_strategies: sampling
                    .operations
                    .iter()
                    .map(|(operation, rate)| Operation {
                        operation,
                        probabilistic_sampling: Rate {
                            sampling_rate: *rate,
                        },
                    })
                    .collect(),
                default_upper_bound_traces_per_second: 0,
            });
        }
        serde_json::to_string(&written).map_err(|error| error.to_string())
    }

    pub fn proto(&self) -> api_v2::SamplingStrategyResponse {
        let mut response = api_v2::SamplingStrategyResponse::default();
        match self.sampler {
            Sampler::Probabilistic(sampling_rate) => {
                response.strategy_type = api_v2::SamplingStrategyType::Probabilistic as i32;
                response.probabilistic_sampling =
                    Some(api_v2::ProbabilisticSamplingStrategy { sampling_rate });
            }
            Sampler::RateLimiting(max_traces_per_second) => {
                response.strategy_type = api_v2::SamplingStrategyType::RateLimiting as i32;
                response.rate_limiting_sampling = Some(api_v2::RateLimitingSamplingStrategy {
                    max_traces_per_second,
                });
            }
        }
        response.operation_sampling = self.operations.as_ref().map(|sampling| {
            let operations = sampling.operations.iter();
            api_v2::PerOperationSamplingStrategies {
                default_sampling_probability: sampling.default_probability,
                default_lower_bound_traces_per_second: sampling.lower_bound,
                per_operation_strategies: operations
                    .map(|(operation, rate)| api_v2::OperationSamplingStrategy {
                        operation: operation.to_string(),
                        probabilistic_sampling: Some(api_v2::ProbabilisticSamplingStrategy {
                            sampling_rate: *rate,
                        }),
                    })
                    .collect(),
                default_upper_bound_traces_per_second: 0.0,
            }
        });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(strategy: &Strategy, spelling: Spelling, expected: &str) {
        assert_eq!(strategy.json(spelling).as_deref(), Ok(expected));
    }

    #[test]
    fn json_has_thrifts_names_and_leaves_out_what_is_absent() {
        check(
            &Strategy::default(),
            Spelling::Name,
            r#"{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":0.001}}"#,
        );
        check(
            &Strategy::from(Sampler::RateLimiting(10)),
            Spelling::Number,
            r#"{"strategyType":1,"rateLimitingSampling":{"maxTracesPerSecond":10}}"#,
        );
        let operations = Some(OperationSampling {
            default_probability: 0.5,
            lower_bound: 0.0,
            operations: vec![("o\"p".into(), 1.0)],
        });
        let sampler = Sampler::Probabilistic(0.5);
        check(
            &Strategy {
                sampler,
                operations,
            },
            Spelling::Name,
            concat!(
                r#"{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":0.5},"#,
                r#""operationSampling":{"defaultSamplingProbability":0.5,"#,
                r#""defaultLowerBoundTracesPerSecond":0,"perOperationStrategies":["#,
                r#"{"operation":"o\"p","probabilisticSampling":{"samplingRate":1}}],"#,
                r#""defaultUpperBoundTracesPerSecond":0}}"#
            ),
        );
    }

    #[test]
    fn more_traces_than_16_bits_hold_are_told_over_grpc_only() {
        let strategy = Strategy::from(Sampler::RateLimiting(40_000));
        let error = strategy.json(Spelling::Name).expect_err("too many");
        assert!(error.ends_with("is higher than int16"), "{error}");
        let limit = strategy.proto().rate_limiting_sampling;
        assert_eq!(limit.map(|l| l.max_traces_per_second), Some(40_000));
    }
}
