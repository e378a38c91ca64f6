//! Node labels by column: for each key that some pod asked about, a small number per row that stands for the value.
//!
//! Columns are made on first use and then follow the nodes. A decision holds a column by reference count, so that it
//! may be read while other columns are made.

use std::collections::HashMap;
use std::sync::Arc;

use super::Row;
use crate::selector::{Labels, Operator, Requirement};

/// The number of a label value within its column; [`ABSENT`] if the row has no such label.
pub type ValueId = u32;
pub const ABSENT: ValueId = 0;

/// Columns kept at the same time; past this, all are dropped and made again on demand.
const MAX_COLUMNS: usize = 512;

#[derive(Clone, Default)]
pub struct LabelColumn {
    by_row: Vec<ValueId>,
    ids: HashMap<Arc<str>, ValueId>,
    /// By id; entry 0 stands for the absent label.
    values: Vec<Arc<str>>,
}

impl LabelColumn {
    fn new(key: &str, rows: &[Option<Arc<Labels>>]) -> Self {
        let mut column = Self {
            values: vec![Arc::from("")],
            ..Self::default()
        };
        column.by_row = rows.iter().map(|_| ABSENT).collect();
        for (row, labels) in rows.iter().enumerate() {
            column.set(row, labels.as_ref().and_then(|l| l.get(key)).map(String::as_str));
        }
        column
    }

    fn set(&mut self, row: usize, value: Option<&str>) {
        self.by_row[row] = value.map_or(ABSENT, |v| self.intern(v));
    }

    fn intern(&mut self, value: &str) -> ValueId {
        if let Some(id) = self.ids.get(value) {
            return *id;
        }
        let value: Arc<str> = value.into();
        // There are at most as many live values as rows; see `is_worn`.
        let id = ValueId::try_from(self.values.len()).unwrap_or(ABSENT);
        self.values.push(Arc::clone(&value));
        self.ids.insert(value, id);
        id
    }

    /// Values of labels that no node has any more outnumber the rows: better made anew.
    fn is_worn(&self) -> bool {
        self.values.len() > 2 * self.by_row.len() + 64
    }

    pub fn get(&self, row: Row) -> ValueId {
        self.by_row[row as usize]
    }

    /// One more than the largest id.
    pub fn values(&self) -> usize {
        self.values.len()
    }

    pub fn value(&self, id: ValueId) -> &Arc<str> {
        &self.values[id as usize]
    }

    pub fn id(&self, value: &str) -> Option<ValueId> {
        self.ids.get(value).copied()
    }
}

#[derive(Default)]
pub struct LabelColumns {
    columns: HashMap<Box<str>, Arc<LabelColumn>>,
    rows: Vec<Option<Arc<Labels>>>,
}

impl LabelColumns {
    pub fn grow(&mut self, rows: usize) {
        self.rows.resize(rows, None);
        for column in self.columns.values_mut() {
            Arc::make_mut(column).by_row.resize(rows, ABSENT);
        }
    }

    pub fn set(&mut self, row: Row, labels: Option<&Labels>) {
        let at = row as usize;
        let same = match (&self.rows[at], labels) {
            (Some(old), Some(new)) => **old == *new,
            (old, new) => old.is_none() && new.is_none(),
        };
        if same {
            return;
        }
        for (key, column) in &mut self.columns {
            let value = labels.and_then(|l| l.get(&**key)).map(String::as_str);
            Arc::make_mut(column).set(at, value);
        }
        self.columns.retain(|_, column| !column.is_worn());
        self.rows[at] = labels.map(|l| Arc::new(l.clone()));
    }

    /// The column of a key, made now if nobody asked for it before.
    pub fn column(&mut self, key: &str) -> Arc<LabelColumn> {
        if let Some(column) = self.columns.get(key) {
            return Arc::clone(column);
        }
        if self.columns.len() >= MAX_COLUMNS {
            self.columns.clear();
        }
        let column = Arc::new(LabelColumn::new(key, &self.rows));
        self.columns.insert(key.into(), Arc::clone(&column));
        column
    }

    /// A label requirement ready to be asked of rows.
    pub fn compile(&mut self, requirement: &Requirement) -> RowTest {
        let column = self.column(&requirement.key);
        let ids = || requirement.values.iter().filter_map(|v| column.id(v)).collect();
        let test = match requirement.operator {
            Operator::In => Test::OneOf(ids()),
            Operator::NotIn => Test::NoneOf(ids()),
            Operator::Exists => Test::Present,
            Operator::DoesNotExist => Test::Absent,
            Operator::Gt | Operator::Lt => Test::Table(truth_table(&column, requirement)),
        };
        RowTest { column, test }
    }
}

fn truth_table(column: &LabelColumn, requirement: &Requirement) -> Vec<bool> {
    let values = column.values.iter().enumerate();
    values
        .map(|(id, value)| requirement.matches((id != 0).then_some(&**value)))
        .collect()
}

/// One label requirement over all rows.
pub struct RowTest {
    column: Arc<LabelColumn>,
    test: Test,
}

enum Test {
    OneOf(Vec<ValueId>),
    NoneOf(Vec<ValueId>),
    Present,
    Absent,
    Table(Vec<bool>),
}

impl RowTest {
    pub fn passes(&self, row: Row) -> bool {
        let id = self.column.get(row);
        match &self.test {
            Test::OneOf(ids) => ids.contains(&id),
            Test::NoneOf(ids) => !ids.contains(&id),
            Test::Present => id != ABSENT,
            Test::Absent => id == ABSENT,
            Test::Table(table) => table.get(id as usize).copied().unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::labels;

    fn columns() -> LabelColumns {
        let mut columns = LabelColumns::default();
        columns.grow(3);
        columns.set(0, Some(&labels(&[("zone", "a"), ("cpus", "4")])));
        columns.set(1, Some(&labels(&[("zone", "b"), ("cpus", "8")])));
        columns
    }

    fn passing(columns: &mut LabelColumns, key: &str, operator: Operator, values: &[&str]) -> Vec<Row> {
        let values = values.iter().map(|v| (*v).into()).collect();
        let test = columns.compile(&Requirement {
            key: key.into(),
            operator,
            values,
        });
        (0..3).filter(|row| test.passes(*row)).collect()
    }

    #[test]
    fn a_requirement_gives_the_same_answer_in_columns_as_on_labels() {
        let mut c = columns();
        assert_eq!(passing(&mut c, "zone", Operator::In, &["b", "x"]), [1]);
        assert_eq!(passing(&mut c, "zone", Operator::In, &["x"]), Vec::<Row>::new());
        assert_eq!(passing(&mut c, "zone", Operator::NotIn, &["b"]), [0, 2]);
        assert_eq!(passing(&mut c, "zone", Operator::Exists, &[]), [0, 1]);
        assert_eq!(passing(&mut c, "zone", Operator::DoesNotExist, &[]), [2]);
        assert_eq!(passing(&mut c, "cpus", Operator::Gt, &["5"]), [1]);
    }

    #[test]
    fn a_column_follows_a_node_whose_label_changes() {
        let mut c = columns();
        assert_eq!(passing(&mut c, "zone", Operator::In, &["a"]), [0]);
        c.set(0, Some(&labels(&[("zone", "c")])));
        c.set(2, Some(&labels(&[("zone", "a")])));
        assert_eq!(passing(&mut c, "zone", Operator::In, &["a"]), [2]);
        c.set(2, None);
        assert_eq!(passing(&mut c, "zone", Operator::Exists, &[]), [0, 1]);
    }

    #[test]
    fn values_that_no_node_has_any_more_do_not_pile_up() {
        let mut c = columns();
        for round in 0..10_000 {
            c.column("zone");
            c.set(0, Some(&labels(&[("zone", &round.to_string())])));
        }
        assert!(c.column("zone").values() < 100);
    }
}
