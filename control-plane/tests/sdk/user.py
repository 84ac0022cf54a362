"""What a program of a user does with a published SDK; every line of it fails loudly."""

import sys

from oz_agent_sdk import BadRequestError, NotFoundError, OzAPI

root, token, environment = sys.argv[1:]
client = OzAPI(
    api_key=token, base_url=root + "/api/v1", max_retries=0, _strict_response_validation=True
)

made = [
    client.agent.run(prompt=f"do it {n}", title=f"run {n}", config={"environment_id": environment})
    for n in range(3)
]
assert all(run.state == "QUEUED" and run.run_id == run.task_id for run in made), made

pages = client.agent.runs.list(limit=2, sort_by="created_at", sort_order="asc")
assert len(pages.runs) == 2 and pages.page_info.has_next_page
if hasattr(pages, "iter_pages"):
    assert [run.run_id for run in pages] == [run.run_id for run in made], "paging by cursor"
else:
    # The older SDK leaves the paging to its user.
    rest = client.agent.runs.list(limit=2, sort_by="created_at", sort_order="asc", cursor=pages.page_info.next_cursor)
    assert [run.run_id for run in rest.runs] == [made[2].run_id]

run = client.agent.runs.retrieve(made[0].run_id)
assert (run.title, run.prompt, run.state) == ("run 0", "do it 0", "QUEUED"), run
assert run.artifacts == [] and run.agent_config.environment_id == environment
assert run.created_at.tzinfo is not None

assert client.agent.runs.cancel(made[0].run_id).strip('"') == made[0].run_id
assert client.agent.runs.retrieve(made[0].run_id).state == "CANCELLED"
assert [r.run_id for r in client.agent.runs.list(state=["CANCELLED"]).runs] == [made[0].run_id]

assert client.agent.list().agents == []
if hasattr(client.agent, "list_environments"):
    (one,) = client.agent.list_environments().environments
    assert (one.uid, one.config.name) == (environment, "shop"), one
    assert [(r.owner, r.repo) for r in one.config.github_repos] == [("acme", "shop")]

for refused, call in [
    (BadRequestError, lambda: client.agent.runs.cancel(made[0].run_id)),
    (BadRequestError, lambda: client.agent.run(prompt="  ")),
    (NotFoundError, lambda: client.agent.runs.retrieve("0198c5f0-0000-7000-8000-000000000000")),
    (NotFoundError, lambda: client.agent.run(prompt="x", config={"environment_id": "env_none"})),
]:
    try:
        call()
    except refused as error:
        assert error.body["type"] and error.body["detail"], error.body
    else:
        raise AssertionError(f"not refused as {refused.__name__}")

print("all good")
