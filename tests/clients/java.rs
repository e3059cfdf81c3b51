//! Java, which has a trust store of its own and reads no variable for it.

use super::*;
use crate::support::process::finish_with;

#[test]
fn java_trusts_us_and_says_nothing_of_it() {
    let world = world();
    let script = "cat > $HOME/Client.java && exec /usr/bin/java $HOME/Client.java \"$0\"";
    let mut java = world.home.run_agent(["sh", "-c", script, &world.url("")]);
    let outcome = finish_with(&mut java, include_bytes!("programs/Client.java"));
    assert_eq!(outcome.stdout, "HttpClient 200 HTTP_2\nHttpsURLConnection 200\n", "{outcome:#?}");
    assert_eq!(outcome.stderr, "");
    spent(&world, 2);
}
