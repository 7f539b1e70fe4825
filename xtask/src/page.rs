//! Pages that commands write for people to look at in a browser.
//!
//! A page is one file: its template with the style, the functions and the data in it. It loads
//! nothing from elsewhere, takes the reader's choice of light or dark colours, and fits a phone.

use serde::Serialize;

/// The style of all pages.
const STYLE: &str = include_str!("page/style.css");
/// Functions for the scripts of all pages.
const PARTS: &str = include_str!("page/parts.js");

/// Fills a template, which has a mark for each of the three.
pub(crate) fn page(template: &str, data: &impl Serialize) -> String {
    let json = serde_json::to_string(data).expect("plain data");
    // The data comes last, because it may hold a mark. A name in it may hold the end of a script.
    let with_style = template.replacen("/*STYLE*/", STYLE, 1).replacen("/*PARTS*/", PARTS, 1);
    with_style.replacen("/*DATA*/null", &json.replace('<', "\\u003c"), 1)
}
