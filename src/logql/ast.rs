//! The tree of a query, normalised where two spellings mean the same.
//!
//! A1. The tree is never deeper than [`MAX_DEPTH`], so that walking it by recursion is safe.
//! A2. Negative line filters have exactly one operand: `!= "a" or "b"` is read as two filters.
//! A3. Operations on two numbers do not occur: they are computed when read.

use crate::model::Matcher;

/// Deepest nesting of a tree.
pub const MAX_DEPTH: usize = 250;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Log(LogExpr),
    Metric(MetricExpr),
}

/// A query for lines: a selector and the stages every line goes through.
#[derive(Clone, Debug, PartialEq)]
pub struct LogExpr {
    pub matchers: Vec<Matcher>,
    pub stages: Vec<Stage>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    Line(LineFilter),
    /// Without extractions: everything the line holds.
    Json(Vec<Extraction>),
    Logfmt(Logfmt),
    Regexp(String),
    Pattern(String),
    Unpack,
    Label(LabelFilter),
    LineFormat(String),
    LabelFormat(Vec<LabelFormat>),
    Decolorize,
    Drop(Vec<LabelPick>),
    Keep(Vec<LabelPick>),
}

/// `|= "a" or "b"`: any of the operands (A2).
#[derive(Clone, Debug, PartialEq)]
pub struct LineFilter {
    pub op: LineOp,
    pub operands: Vec<LineOperand>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineOp {
    /// `|=`
    Contains,
    /// `!=`
    NotContains,
    /// `|~`
    Regex,
    /// `!~`
    NotRegex,
    /// `|>`
    Pattern,
    /// `!>`
    NotPattern,
}

impl LineOp {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contains => "|=",
            Self::NotContains => "!=",
            Self::Regex => "|~",
            Self::NotRegex => "!~",
            Self::Pattern => "|>",
            Self::NotPattern => "!>",
        }
    }

    pub fn is_negative(self) -> bool {
        matches!(self, Self::NotContains | Self::NotRegex | Self::NotPattern)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineOperand {
    Text(String),
    /// `ip("…")`
    Ip(String),
}

/// `name="path"` of `json` and `logfmt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extraction {
    pub name: String,
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Logfmt {
    pub strict: bool,
    pub keep_empty: bool,
    /// Empty: everything the line holds.
    pub extractions: Vec<Extraction>,
}

/// A condition on labels.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelFilter {
    /// Regexes are anchored; their dot does not match a newline.
    Text(Matcher),
    Number {
        name: String,
        op: Compare,
        value: f64,
    },
    Duration {
        name: String,
        op: Compare,
        /// Nanoseconds.
        value: i64,
    },
    Bytes {
        name: String,
        op: Compare,
        value: u64,
    },
    Ip {
        name: String,
        negated: bool,
        pattern: String,
    },
    And(Box<LabelFilter>, Box<LabelFilter>),
    Or(Box<LabelFilter>, Box<LabelFilter>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Compare {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Less => "<",
            Self::LessEqual => "<=",
        }
    }

    /// False where the values have no order (NaN), except for `!=`.
    pub fn holds<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::GreaterEqual => left >= right,
            Self::Less => left < right,
            Self::LessEqual => left <= right,
        }
    }
}

/// One assignment of `label_format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelFormat {
    Rename { to: String, from: String },
    Template { to: String, template: String },
}

impl LabelFormat {
    pub fn target(&self) -> &str {
        match self {
            Self::Rename { to, .. } | Self::Template { to, .. } => to,
        }
    }
}

/// What `drop` and `keep` name.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelPick {
    Name(String),
    Matching(Matcher),
}

/// A query for samples.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricExpr {
    Range(RangeAggregation),
    Vector(VectorAggregation),
    Binary(Box<Binary>),
    Number(f64),
    /// `vector(n)`
    VectorOf(f64),
    LabelReplace(Box<LabelReplace>),
    Variants(Box<Variants>),
}

/// `rate({…} | … [5m])`
#[derive(Clone, Debug, PartialEq)]
pub struct RangeAggregation {
    pub function: RangeFunction,
    /// The rank of `quantile_over_time`.
    pub parameter: Option<f64>,
    pub over: LogRange,
    pub grouping: Option<Grouping>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogRange {
    pub log: LogExpr,
    pub unwrap: Option<Unwrap>,
    /// Nanoseconds, not negative.
    pub range: i64,
    /// Nanoseconds, positive into the past.
    pub offset: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Unwrap {
    pub name: String,
    pub conversion: Conversion,
    pub filters: Vec<LabelFilter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    Number,
    Bytes,
    Duration,
    /// The same as `Duration`, under its other name.
    DurationSeconds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeFunction {
    CountOverTime,
    Rate,
    BytesOverTime,
    BytesRate,
    AbsentOverTime,
    SumOverTime,
    AvgOverTime,
    MinOverTime,
    MaxOverTime,
    StddevOverTime,
    StdvarOverTime,
    QuantileOverTime,
    FirstOverTime,
    LastOverTime,
    RateCounter,
}

impl RangeFunction {
    pub const ALL: [Self; 15] = [
        Self::CountOverTime,
        Self::Rate,
        Self::BytesOverTime,
        Self::BytesRate,
        Self::AbsentOverTime,
        Self::SumOverTime,
        Self::AvgOverTime,
        Self::MinOverTime,
        Self::MaxOverTime,
        Self::StddevOverTime,
        Self::StdvarOverTime,
        Self::QuantileOverTime,
        Self::FirstOverTime,
        Self::LastOverTime,
        Self::RateCounter,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::CountOverTime => "count_over_time",
            Self::Rate => "rate",
            Self::BytesOverTime => "bytes_over_time",
            Self::BytesRate => "bytes_rate",
            Self::AbsentOverTime => "absent_over_time",
            Self::SumOverTime => "sum_over_time",
            Self::AvgOverTime => "avg_over_time",
            Self::MinOverTime => "min_over_time",
            Self::MaxOverTime => "max_over_time",
            Self::StddevOverTime => "stddev_over_time",
            Self::StdvarOverTime => "stdvar_over_time",
            Self::QuantileOverTime => "quantile_over_time",
            Self::FirstOverTime => "first_over_time",
            Self::LastOverTime => "last_over_time",
            Self::RateCounter => "rate_counter",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == name)
    }

    /// Whether the value is the byte length of lines.
    pub fn counts_bytes(self) -> bool {
        matches!(self, Self::BytesOverTime | Self::BytesRate)
    }
}

/// `by (a, b)` or `without (a, b)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grouping {
    pub kind: GroupingKind,
    pub labels: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupingKind {
    By,
    Without,
}

/// `sum by (a) (…)`. `by ()` is read as no grouping: both give the empty label set.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorAggregation {
    pub function: VectorFunction,
    /// The k of `topk` and its like, positive.
    pub parameter: Option<u64>,
    pub grouping: Option<Grouping>,
    pub inner: Box<MetricExpr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorFunction {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Sort,
    SortDesc,
    ApproxTopk,
}

impl VectorFunction {
    pub const ALL: [Self; 12] = [
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::Sort,
        Self::SortDesc,
        Self::ApproxTopk,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::Sort => "sort",
            Self::SortDesc => "sort_desc",
            Self::ApproxTopk => "approx_topk",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == name)
    }

    /// Whether the function wants a k.
    pub fn takes_parameter(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::ApproxTopk)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    pub op: BinaryOp,
    pub left: MetricExpr,
    pub right: MetricExpr,
    /// `bool` after a comparison.
    pub returns_bool: bool,
    pub matching: Matching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Or,
    And,
    Unless,
    Compare(Compare),
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

impl BinaryOp {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Unless => "unless",
            Self::Compare(compare) => compare.as_str(),
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        }
    }

    /// Higher binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Compare(_) => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod => 5,
            Self::Pow => 6,
        }
    }

    pub fn is_right_associative(self) -> bool {
        self == Self::Pow
    }

    pub fn is_set_operation(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }
}

/// Which samples of two vectors belong together.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Matching {
    /// `on (labels)`; else `ignoring (labels)`, and by default `ignoring ()`.
    pub on: bool,
    pub labels: Vec<String>,
    pub group: Option<Group>,
}

/// `group_left (include)`: one sample of the other side may match several of this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub many: Side,
    /// Labels copied from the "one" side.
    pub include: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Left,
    Right,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LabelReplace {
    pub inner: MetricExpr,
    pub target: String,
    pub replacement: String,
    pub source: String,
    pub regex: String,
}

/// `variants(…) of (…)`: read and printed, never run.
#[derive(Clone, Debug, PartialEq)]
pub struct Variants {
    pub variants: Vec<MetricExpr>,
    pub over: LogRange,
}
