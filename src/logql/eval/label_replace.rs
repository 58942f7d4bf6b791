//! `label_replace(v, dst, replacement, src, regex)`.

use std::sync::Arc;

use super::EvalError;
use crate::logql::ast::LabelReplace;
use crate::logql::re2;
use crate::model::labels::LabelsBuilder;
use crate::model::series::Matrix;

/// Series that the regex does not match stay as they are. Labels may become equal.
pub fn label_replace(replace: &LabelReplace, mut matrix: Matrix) -> Result<Matrix, EvalError> {
    let regex = re2::anchored(&replace.regex).map_err(|e| EvalError::Unsupported(e.to_string()))?;
    for series in &mut matrix {
        let source = series.labels.get(&replace.source).unwrap_or("");
        let Some(captures) = regex.captures(source) else {
            continue;
        };
        let mut value = String::new();
        captures.expand(&replace.replacement, &mut value);
        let mut builder = LabelsBuilder::from_labels(&series.labels);
        if value.is_empty() {
            builder.remove(&replace.target);
        } else {
            let target: Arc<str> = replace.target.as_str().into();
            builder.set(target, value);
        }
        series.labels = builder.build();
    }
    Ok(matrix)
}
