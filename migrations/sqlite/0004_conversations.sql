-- Conversations: runs that go on with what an earlier one left, and servers of tools with their secrets.
-- The same tables and columns stand in ../postgres/0004_conversations.sql; a test compares them.

-- The id of the conversation's first run; null for that one, and for every run nobody went on with.
alter table runs add column conversation_id text;

-- The provider's own name for the conversation, as the run's newest `session` event says.
alter table runs add column session_id text;

-- The MCP servers of a run, sealed for its id; those of an environment, for that one's.
alter table runs add column mcp_sealed blob;
alter table environments add column mcp_sealed blob;

create index runs_conversation on runs (conversation_id, created_at) where conversation_id is not null;

-- Of a conversation one run at a time goes on, whatever two planes think.
create unique index runs_conversation_open on runs (conversation_id)
    where conversation_id is not null and state in ('QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS');
