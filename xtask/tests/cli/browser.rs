//! Pages as a browser shows them.

use std::process::Command;

use crate::support::TestFolder;

/// Returns a page in the folder as it is after its scripts have run, in a browser with options;
/// `None` without a browser.
pub(crate) fn shown(dir: &TestFolder, page: &str, options: &[&str]) -> Option<String> {
    let profile = dir.path("profile");
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    browser.arg(format!("--user-data-dir={}", profile.display())).arg("--dump-dom");
    browser.args(options);
    let output = browser.arg(format!("file://{}", dir.path(page).display())).output();
    match output {
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: chromium cannot be started ({error})");
            None
        }
        Err(error) => panic!("chromium cannot be started: {error}"),
    }
}

/// Returns the text of the element with this id.
pub(crate) fn value<'p>(page: &'p str, id: &str) -> &'p str {
    let mark = format!("id=\"value-{id}\">");
    let rest = page.split_once(&mark).unwrap_or_else(|| panic!("no value {id} in:\n{page}")).1;
    rest.split_once('<').unwrap().0
}

/// Puts the page into a frame as wide as a phone, and says how wide its content is, how many things
/// it drew, and what colours it has.
const PHONE: &str = r#"<!doctype html><iframe id="phone" width="360" height="740"></iframe><script>
const phone = document.getElementById("phone");
phone.addEventListener("load", () => setTimeout(() => {
    const page = phone.contentDocument, colours = phone.contentWindow.getComputedStyle(page.body);
    const light = colour => colour.match(/[0-9]+/g).slice(0, 3).every(part => part > 127);
    document.body.dataset.shown = [
        phone.contentWindow.innerWidth, page.documentElement.scrollWidth,
        page.querySelector("[data-drawn]").dataset.drawn,
        light(colours.backgroundColor), light(colours.color),
    ].join(" ");
}, 0));
phone.srcdoc = PAGE;
</script>"#;

/// Checks that a page that draws `drawn` things fits a phone, and has dark colours where they are
/// wanted.
pub(crate) fn fits_a_phone(dir: &TestFolder, page: &str, drawn: usize) {
    let page = std::fs::read_to_string(dir.path(page)).unwrap();
    // A script in a string of a script must not end that.
    let text = serde_json::to_string(&page).unwrap().replace("</", "<\\/").replace("<!--", "<\\!--");
    dir.write("phone.html", PHONE.replace("PAGE", &text));
    for (options, colours) in [(&[][..], "true false"), (&["--force-dark-mode"], "false true")] {
        let Some(shown) = shown(dir, "phone.html", options) else { return };
        let shown = shown.split_once("data-shown=\"").expect("the script ran").1.split_once('"').unwrap().0;
        let parts: Vec<&str> = shown.splitn(4, ' ').collect();
        let [width, content, spans, light] = parts[..] else { panic!("{shown}") };
        let (width, content): (u32, u32) = (width.parse().unwrap(), content.parse().unwrap());
        assert!(width <= 360 && content <= width, "nothing is outside of {width} pixels: {content}");
        assert_eq!((spans, light), (&*drawn.to_string(), colours), "{options:?}");
    }
}
