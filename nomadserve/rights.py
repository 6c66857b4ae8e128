"""What a token lacks, said as the lines of a policy that would give it. Pure.

Sources: https://developer.hashicorp.com/nomad/api-docs (the capabilities of each path),
https://developer.hashicorp.com/consul/docs/security/acl/acl-rules, and the replies of both, tried.
"""

import re
from urllib.parse import parse_qs, urlsplit

DOCUMENT = "docs/acl.md"

# The first line that fits a request tells the capability that it needs in its namespace.
_CAPABILITIES = (
    (r"GET /v1/jobs$", "list-jobs"),
    (r"POST /v1/jobs/parse$", "parse-job"),
    (r"(?:PUT|POST) /v1/job/[^/]+/scale$", "scale-job"),
    (r"(?:PUT|POST|DELETE) /v1/(?:job|jobs|deployment)\b", "submit-job"),
    (r"GET /v1/(?:job|deployment|deployments|evaluation|allocation)\b", "read-job"),
    (r"GET /v1/client/fs/logs/", "read-logs"),
)
_CONSUL_LACKS = re.compile(r"lacks permission '(\w+):(\w+)' on \"(.*?)\"")


def nomad_lacks(method: str, url: str) -> str:
    """The policy, in Nomad's HCL, that a refused request needs; empty where it can't be told."""
    address = urlsplit(url)
    namespace = parse_qs(address.query).get("namespace", ["default"])[0]
    if address.path.startswith(("/v1/node/", "/v1/nodes")):
        return 'node { policy = "read" }'
    for pattern, capability in _CAPABILITIES:
        if re.match(pattern, f"{method} {address.path}"):
            return f'namespace "{namespace}" {{ capabilities = ["{capability}"] }}'
    return ""


def consul_lacks(reply: str) -> str:
    """The rule, in Consul's HCL, that Consul's own words call for; empty where they name none."""
    found = _CONSUL_LACKS.search(reply)
    if found is None:
        return ""
    resource, policy, name = found.groups()
    return f'{resource} "{name}" {{ policy = "{policy}" }}'


def hint(variable: str, rule: str) -> str:
    """The way out for somebody whose token, in that environment variable, lacks the rule."""
    needed = f"a token whose policy has `{rule}`" if rule else "a token that may"
    return f"set {variable} to {needed}; {DOCUMENT} has whole policies"
