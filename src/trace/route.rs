//! stub
#[derive(Debug, Default)]
pub struct Routes;
impl Routes {
    pub fn template(&mut self, _service: &str, path: &str) -> Option<String> {
        Some(path.replace('7', "{id}"))
    }
}
pub fn split_target(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((a, b)) => (a, Some(b)),
        None => (target, None),
    }
}
