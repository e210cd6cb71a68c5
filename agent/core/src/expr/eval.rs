//! The value of a tree.

use std::cmp::Ordering;

use super::parse::{Node, Operator};
use super::{Sample, Scope};
use crate::reading::Scalar;

/// Evaluates; `None` is missing. Recurses at most as deep as the parser let the tree grow.
pub(super) fn eval<'a>(node: &'a Node, scope: &'a impl Scope) -> Option<Scalar<'a>> {
    Some(match node {
        Node::Int(value) => Scalar::Int(*value),
        Node::Float(value) => Scalar::Float(*value),
        Node::Bool(value) => Scalar::Bool(*value),
        Node::Text(text) => Scalar::Text(text),
        Node::Newest(place) => value(scope.newest(*place)?)?,
        Node::Previous(place) => value(scope.previous(*place)?)?,
        Node::Rate(place) => rate(scope.previous(*place)?, scope.newest(*place)?)?,
        Node::Negate(inner) => match eval(inner, scope)? {
            Scalar::Int(value) => value.checked_neg().map_or(Scalar::Float(-(value as f64)), Scalar::Int),
            Scalar::Float(value) => Scalar::Float(-value),
            Scalar::Bool(_) | Scalar::Text(_) => return None,
        },
        Node::Not(inner) => Scalar::Bool(!truth(eval(inner, scope)?)?),
        Node::Abs(inner) => match eval(inner, scope)? {
            Scalar::Int(value) => value.checked_abs().map_or(Scalar::Float((value as f64).abs()), Scalar::Int),
            Scalar::Float(value) => Scalar::Float(value.abs()),
            Scalar::Bool(_) | Scalar::Text(_) => return None,
        },
        Node::Binary(operator, sides) => {
            let [left, right] = &**sides;
            binary(*operator, eval(left, scope)?, eval(right, scope)?)?
        }
        Node::Least(nodes) => extreme(nodes, Ordering::Less, scope)?,
        Node::Greatest(nodes) => extreme(nodes, Ordering::Greater, scope)?,
        Node::Clamp(nodes) => {
            let [inner, low, high] = &**nodes;
            let (inner, low, high) = (eval(inner, scope)?, eval(low, scope)?, eval(high, scope)?);
            for side in [inner, low, high] {
                side.as_number()?;
            }
            if inner.total_cmp(low) == Ordering::Less {
                low
            } else if inner.total_cmp(high) == Ordering::Greater {
                high
            } else {
                inner
            }
        }
        Node::If(nodes) => {
            let [condition, then, otherwise] = &**nodes;
            return eval(if truth(eval(condition, scope)?)? { then } else { otherwise }, scope);
        }
    })
}

fn value(sample: &Sample) -> Option<Scalar<'_>> {
    sample.value.as_ref().map(crate::reading::Value::as_scalar)
}

fn truth(value: Scalar<'_>) -> Option<bool> {
    match value {
        Scalar::Bool(value) => Some(value),
        _ => None,
    }
}

/// The change per second between two samples.
fn rate<'a>(from: &Sample, to: &Sample) -> Option<Scalar<'a>> {
    let change = match (value(from)?, value(to)?) {
        // The difference of two counters is exact where their floats would round.
        (Scalar::Int(a), Scalar::Int(b)) => (i128::from(b) - i128::from(a)) as f64,
        (a, b) => b.as_number()? - a.as_number()?,
    };
    let seconds = to.time.since(from.time).as_secs_f64();
    finite(change / seconds)
}

fn finite<'a>(value: f64) -> Option<Scalar<'a>> {
    value.is_finite().then_some(Scalar::Float(value))
}

fn extreme<'a>(nodes: &'a [Node], wanted: Ordering, scope: &'a impl Scope) -> Option<Scalar<'a>> {
    let mut best: Option<Scalar<'a>> = None;
    for node in nodes {
        let next = eval(node, scope)?;
        next.as_number()?;
        if best.is_none_or(|best| next.total_cmp(best) == wanted) {
            best = Some(next);
        }
    }
    best
}

fn binary<'a>(operator: Operator, left: Scalar<'a>, right: Scalar<'a>) -> Option<Scalar<'a>> {
    Some(Scalar::Bool(match operator {
        Operator::And => truth(left)? & truth(right)?,
        Operator::Or => truth(left)? | truth(right)?,
        Operator::Equal => compare(left, right)? == Ordering::Equal,
        Operator::Unequal => compare(left, right)? != Ordering::Equal,
        Operator::Less => order(left, right)? == Ordering::Less,
        Operator::LessOrEqual => order(left, right)? != Ordering::Greater,
        Operator::Greater => order(left, right)? == Ordering::Greater,
        Operator::GreaterOrEqual => order(left, right)? != Ordering::Less,
        Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
            return arithmetic(operator, left, right);
        }
    }))
}

/// How two values of one kind compare; only whether they are equal means anything for bools and texts.
fn compare(left: Scalar<'_>, right: Scalar<'_>) -> Option<Ordering> {
    match (left, right) {
        (Scalar::Bool(left), Scalar::Bool(right)) => Some(left.cmp(&right)),
        (Scalar::Text(left), Scalar::Text(right)) => Some(left.cmp(right)),
        _ => order(left, right),
    }
}

/// How two numbers compare.
fn order(left: Scalar<'_>, right: Scalar<'_>) -> Option<Ordering> {
    match (left, right) {
        (Scalar::Int(left), Scalar::Int(right)) => Some(left.cmp(&right)),
        _ => left.as_number()?.partial_cmp(&right.as_number()?),
    }
}

fn arithmetic<'a>(operator: Operator, left: Scalar<'a>, right: Scalar<'a>) -> Option<Scalar<'a>> {
    if let (Scalar::Int(left), Scalar::Int(right)) = (left, right) {
        let exact = match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            // The one overflow, MIN % -1, is 0.
            Operator::Remainder if right != 0 => Some(left.wrapping_rem(right)),
            _ => None,
        };
        if let Some(exact) = exact {
            return Some(Scalar::Int(exact));
        }
    }
    let (left, right) = (left.as_number()?, right.as_number()?);
    finite(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        _ => left % right,
    })
}
