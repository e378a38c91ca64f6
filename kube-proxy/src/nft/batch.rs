//! A transaction: operations in the order in which the kernel shall see them.

use super::{Expr, Family, Hook, SetSpec, Verdict};

/// What a map holds for a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    None,
    Verdict(Verdict),
    Data(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    pub set: &'static str,
    pub key: Vec<u8>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Makes sure that the table is there, then deletes it with all it holds.
    ReplaceTable,
    DeleteTable,
    AddChain {
        name: String,
        hook: Option<Hook>,
    },
    AddRule {
        chain: String,
        rule: Vec<Expr>,
    },
    AddSet(SetSpec),
    AddElements(&'static str, Vec<Element>),
    DeleteElements(&'static str, Vec<Element>),
}

/// One transaction on one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub family: Family,
    pub table: &'static str,
    pub operations: Vec<Operation>,
}

impl Batch {
    pub fn new(family: Family, table: &'static str) -> Self {
        Self {
            family,
            table,
            operations: Vec::new(),
        }
    }

    pub fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Elements of one set after the other, so that a message carries many of one set.
    pub fn add_elements(&mut self, elements: Vec<Element>) {
        grouped(elements, |set, group| {
            self.push(Operation::AddElements(set, group))
        });
    }

    pub fn delete_elements(&mut self, elements: Vec<Element>) {
        grouped(elements, |set, group| {
            self.push(Operation::DeleteElements(set, group))
        });
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

fn grouped(mut elements: Vec<Element>, mut emit: impl FnMut(&'static str, Vec<Element>)) {
    elements.sort_by_key(|element| element.set);
    let mut group: Vec<Element> = Vec::new();
    for element in elements {
        if group.first().is_some_and(|first| first.set != element.set) {
            emit(group[0].set, std::mem::take(&mut group));
        }
        group.push(element);
    }
    if let Some(first) = group.first() {
        emit(first.set, group);
    }
}
