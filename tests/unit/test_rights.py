import pytest

from nomadserve import rights

NOMAD = "http://127.0.0.1:4646"


@pytest.mark.parametrize(
    ("method", "path", "policy"),
    [
        ("GET", "/v1/jobs?namespace=*&meta=true", 'namespace "*" { capabilities = ["list-jobs"] }'),
        ("POST", "/v1/jobs/parse", 'namespace "default" { capabilities = ["parse-job"] }'),
        ("POST", "/v1/job/digits-v1?namespace=ml", 'namespace "ml" { capabilities = ["submit-job"] }'),
        ("PUT", "/v1/job/digits-v1/plan", 'namespace "default" { capabilities = ["submit-job"] }'),
        ("DELETE", "/v1/job/digits-v1", 'namespace "default" { capabilities = ["submit-job"] }'),
        ("POST", "/v1/deployment/fail/1", 'namespace "default" { capabilities = ["submit-job"] }'),
        ("POST", "/v1/job/digits-v1/scale", 'namespace "default" { capabilities = ["scale-job"] }'),
        ("GET", "/v1/job/digits-v1/allocations", 'namespace "default" { capabilities = ["read-job"] }'),
        ("GET", "/v1/evaluation/1", 'namespace "default" { capabilities = ["read-job"] }'),
        ("GET", "/v1/client/fs/logs/1?task=serve", 'namespace "default" { capabilities = ["read-logs"] }'),
        ("GET", "/v1/nodes", 'node { policy = "read" }'),
        ("GET", "/v1/node/1/allocations", 'node { policy = "read" }'),
        ("GET", "/v1/something/new", ""),
    ],
)
def test_each_request_to_nomad_has_the_policy_that_permits_it(method: str, path: str, policy: str) -> None:
    assert rights.nomad_lacks(method, NOMAD + path) == policy


@pytest.mark.parametrize(
    ("reply", "rule"),
    [
        (
            "Permission denied: token with AccessorID '1-2' lacks permission 'service:write' on \"digits-v1\"",
            'service "digits-v1" { policy = "write" }',
        ),
        (
            "rpc error making call: Permission denied: anonymous token lacks permission 'service:read' on \"digits\". "
            "The anonymous token is used implicitly when a request does not specify a token.",
            'service "digits" { policy = "read" }',
        ),
        ("ACL not found", ""),
    ],
)
def test_consuls_own_words_become_the_rule_that_is_missing(reply: str, rule: str) -> None:
    assert rights.consul_lacks(reply) == rule


def test_the_hint_names_the_rule_or_at_least_where_rules_are_written() -> None:
    assert rights.hint("NOMAD_TOKEN", 'node { policy = "read" }') == (
        'set NOMAD_TOKEN to a token whose policy has `node { policy = "read" }`; docs/acl.md has whole policies'
    )
    assert rights.hint("CONSUL_HTTP_TOKEN", "").startswith("set CONSUL_HTTP_TOKEN to a token that may; docs/acl.md")
