//! One measured figure, its ceiling, and how both are printed. Knows nothing of how they were measured.

use serde::Serialize;

/// The head of the table.
pub(super) const HEAD: [&str; 5] = ["name", "value", "ceiling", "", "ratio"];

/// A figure. The names of its fields are a promise of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    /// What was measured.
    pub(super) name: &'static str,
    /// The median of several rounds.
    pub(super) value: f64,
    /// Of the value and of the ceiling.
    pub(super) unit: &'static str,
    /// What the machine was asked to do for the ceiling.
    pub(super) ceiling_name: Option<&'static str>,
    /// The same in the same run without tintype.
    pub(super) ceiling: Option<f64>,
    /// Value divided by ceiling.
    pub(super) ratio: Option<f64>,
}

impl Figure {
    /// A figure that has no ceiling.
    pub(super) fn new(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, value, unit, ceiling_name: None, ceiling: None, ratio: None }
    }

    /// With its ceiling. A ceiling that could not be measured (zero) gives no ratio.
    pub(super) fn under(self, ceiling_name: &'static str, ceiling: f64) -> Self {
        let ratio = (ceiling > 0.0).then(|| self.value / ceiling);
        Self { ceiling_name: Some(ceiling_name), ceiling: Some(ceiling), ratio, ..self }
    }

    /// As cells of the table.
    pub(super) fn row(&self) -> Vec<String> {
        let with_unit = |value: f64| format!("{} {}", rounded(value), self.unit);
        vec![
            self.name.to_owned(),
            with_unit(self.value),
            self.ceiling.map_or_else(|| "-".to_owned(), with_unit),
            self.ceiling_name.unwrap_or_default().to_owned(),
            self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        ]
    }
}

/// Three digits say all that such a measurement knows.
fn rounded(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The median; of an even number the mean of the middle two; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_part_of_the_ceiling_that_was_reached() {
        let figure = Figure::new("seal", "MiB/s", 50.0).under("bare", 200.0);
        assert_eq!(figure.ratio, Some(0.25));
        assert_eq!(Figure::new("x", "1/s", 50.0).under("nothing", 0.0).ratio, None);
        assert_eq!(Figure::new("x", "1/s", 50.0).ratio, None);
    }

    #[test]
    fn the_median_bears_one_wild_value() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1e9, 1.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn json_has_the_promised_names_and_null_for_the_unknown() {
        let text = serde_json::to_string(&Figure::new("commits", "1/s", 2.5)).unwrap();
        let promised = concat!(
            r#"{"name":"commits","value":2.5,"unit":"1/s","#,
            r#""ceiling_name":null,"ceiling":null,"ratio":null}"#
        );
        assert_eq!(text, promised);
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let row = Figure::new("get", "MiB/s", 123.4).under("bulk", 246.8).row();
        assert_eq!(row, ["get", "123 MiB/s", "247 MiB/s", "bulk", "0.50"]);
        assert_eq!(Figure::new("get", "MiB/s", 1.234).row().len(), HEAD.len());
        assert_eq!(rounded(12.34), "12.3");
        assert_eq!(rounded(1.234), "1.23");
    }
}
