//! The audit log's disk fills up: no request is sent while it is full, and no record is lost.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use crate::end_to_end::{Fixture, WaitingAgent};
use crate::support::process::{command, run};

#[test]
fn full_audit_disk_refuses_requests() {
    let mut fixture = Fixture::new();
    fixture.home.audit_disk(64 * 1024);
    let script = "echo ready; while read more url; do \
        curl -sS -o $HOME/answer -w '%{http_code} ' $more $url; head -c 300 $HOME/answer; echo; done";
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["sh", "-c", script]));
    let interceptor = agent.interceptor();
    let mut input = agent.child.stdin.take().unwrap();
    let mut output = BufReader::new(agent.child.stdout.take().unwrap());
    let mut requests = 0;
    let mut ask = |more: &str, url: &str| {
        requests += 1;
        writeln!(input, "{more} {url}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    // Shell words: a value without a space.
    let spending = "-HX-Api-Key:AS_SECRET_API_KEY";
    let url = fixture.url("/echo");
    assert!(ask(spending, &url).starts_with("200 "));

    // Full to the last byte, as the interceptor sees it.
    let folder = PathBuf::from(format!("/proc/{interceptor}/root"))
        .join(fixture.home.path().join("audit").strip_prefix("/").unwrap());
    let filler = folder.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // The rest of the log's last page takes a few more records.
    let refused = (0..40).map(|_| ask(spending, &url)).find(|line| !line.starts_with("200 ")).unwrap();
    let sent = fixture.api.received().len();
    assert!(refused.starts_with("503 ") && refused.contains("audit_unavailable"), "{refused}");
    for more in [spending, "-HX-No-Secret:1"] {
        for _ in 0..5 {
            let refused = ask(more, &url);
            assert!(refused.starts_with("503 ") && refused.contains("audit_unavailable"), "{refused}");
        }
    }
    assert!(ask("-HX-No-Secret:1", "https://nowhere.test/").starts_with("403 "));
    assert_eq!(fixture.api.received().len(), sent, "something was sent without a record");

    std::fs::remove_file(&filler).unwrap();
    assert!(ask(spending, &url).starts_with("200 "));
    assert!(ask("-HX-No-Secret:1", &url).starts_with("200 "));

    let mut nsenter = command("nsenter");
    nsenter.arg(format!("--mount=/proc/{interceptor}/ns/mnt")).arg(crate::support::home::AGENTSECRETS);
    nsenter.env("AGENTSECRETS_HOME", fixture.home.path());
    let records: Vec<serde_json::Value> = run(nsenter.args(["audit", "list", "--json"])).json_lines();
    let with = |status: &str| records.iter().filter(|record| record["status"] == status).count();
    assert_eq!(records.len(), requests, "{records:#?}");
    assert_eq!(with("OK"), fixture.api.received().len());
    assert_eq!(with("ERROR"), 11);
    assert_eq!(with("BLOCKED"), 1);
    let mut nsenter = command("nsenter");
    nsenter.arg(format!("--mount=/proc/{interceptor}/ns/mnt")).arg(crate::support::home::AGENTSECRETS);
    run(nsenter.args(["audit", "verify"]).env("AGENTSECRETS_HOME", fixture.home.path())).ok();
    drop(input);
}
