//! From the text of an expression to its tokens.

use super::parse::ExprError;

/// A token and the byte at which it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) what: Lexeme,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lexeme {
    Int(i64),
    Float(f64),
    Text(String),
    /// A name or a word such as `and`.
    Name(String),
    /// An operator, a parenthesis or a comma.
    Sign(&'static str),
    End,
}

/// Longer signs first: `<=` is not `<` and `=`.
const SIGNS: [&str; 14] = ["==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ","];

impl Lexeme {
    /// As it stands in an error.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Int(value) => format!("`{value}`"),
            Self::Float(value) => format!("`{value}`"),
            Self::Text(text) => format!("the text '{text}'"),
            Self::Name(name) => format!("`{name}`"),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".into(),
        }
    }
}

/// The tokens of a text, the last one [`Lexeme::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ExprError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { at, what: Lexeme::End });
            return Ok(tokens);
        };
        let (what, after) = if first.is_ascii_digit() || first == '.' {
            number(rest, at)?
        } else if first == '\'' {
            quoted(rest, at)?
        } else if first.is_alphabetic() || first == '_' {
            // A point is part of a name: `u.mean`, `u.p99.9`.
            let (name, after) = split(rest, |c| c.is_alphanumeric() || c == '_' || c == '.');
            (Lexeme::Name(name.to_owned()), after)
        } else if let Some((sign, after)) = SIGNS.iter().find_map(|sign| Some((*sign, rest.strip_prefix(sign)?))) {
            (Lexeme::Sign(sign), after)
        } else {
            let hint = match first {
                '=' => " (equality is `==`)",
                '&' => " (write `and`)",
                '|' => " (write `or`)",
                '!' => " (write `not`)",
                '"' => " (texts stand in single quotes)",
                _ => "",
            };
            return Err(ExprError::new(at, "a value or an operator", format!("`{first}`{hint}")));
        };
        tokens.push(Token { at, what });
        rest = after;
    }
}

/// Splits where `belongs` first says no.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Digits, a fraction, an exponent. Whole numbers beyond 64 bits become floats.
fn number(text: &str, at: usize) -> Result<(Lexeme, &str), ExprError> {
    let mut after_exponent = false;
    let end = text
        .char_indices()
        .find(|&(_, c)| {
            let sign_of_exponent = after_exponent && (c == '+' || c == '-');
            after_exponent = matches!(c, 'e' | 'E');
            !(c.is_alphanumeric() || c == '.' || c == '_' || sign_of_exponent)
        })
        .map_or(text.len(), |(i, _)| i);
    let (digits, after) = text.split_at(end);
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(value) = digits.parse()
    {
        return Ok((Lexeme::Int(value), after));
    }
    // The letters of "inf" and "nan" never begin a number here, so that what `f64` reads beyond our grammar is not reached.
    match digits.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((Lexeme::Float(value), after)),
        _ => Err(ExprError::new(at, "a number such as 12, 0.5 or 1e-3", format!("`{digits}`"))),
    }
}

/// A text in single quotes; two quotes in it are one.
fn quoted(text: &str, at: usize) -> Result<(Lexeme, &str), ExprError> {
    let mut value = String::new();
    let mut rest = text.get(1..).unwrap_or_default();
    while let Some((piece, after)) = rest.split_once('\'') {
        value.push_str(piece);
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Ok((Lexeme::Text(value), after)),
        }
    }
    Err(ExprError::new(at, "a closing quote", "the end"))
}
