#!lua flags=no-writes,allow-stale,allow-cross-slot-keys
-- For redis_exporter: --script llmcache.lua (with --lua-script-read-only where it has that option).
--
-- Answers names and values, flat. The exporter shows them as redis_script_values{key="llmcache_hits_total;cache=faq;tier=exact"};
-- the rules in prometheus.yml make llmcache_hits_total{cache="faq",tier="exact"} of that, the names of the Python client's
-- collector. Bounded: the caches that INFO names, at most 64, two commands each.
local MOST = 64
local GAUGES = {}
for name in string.gmatch([[
  caches entries entries_hidden bytes index_bytes leases lease_bytes waiters clients_blocked searches_out commands_in_slices
  last_command_keys last_command_steps last_command_reply_bytes orphan_groups models model_bytes texts_memo texts_memo_bytes
  texts_queued texts_queued_most namespaces chunks chunk_bytes chunk_payload_bytes chunk_leases chunk_bytes_in_flight
  session_followers document_indexes documents document_bytes document_index_bytes embedding_caches embeddings embedding_bytes
  embedding_index_bytes
]], '%S+') do GAUGES[name] = true end

local out = {}
local function add(name, value, labels)
  if type(value) == 'number' then value = string.format('%.17g', value) end
  out[#out + 1] = 'llmcache_' .. name .. (labels or '')
  out[#out + 1] = value
end

local function map(reply)
  local told = {}
  for at = 1, #reply, 2 do told[reply[at]] = reply[at + 1] end
  return told
end

-- A name of INFO. What would end a label, and what is no printable character, stays written as its number.
local function decoded(name)
  return (string.gsub(name, '%%(%x%x)', function(hex)
    local byte = tonumber(hex, 16)
    if byte < 32 or byte == 59 or byte == 127 then return '%' .. hex end
    return string.char(byte)
  end))
end

local function raw(name)
  return (string.gsub(name, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

add('up', '1')
local info = redis.call('INFO', 'llmcache')
local caches = {}
for name, value in string.gmatch(info, 'llmcache_([%w_]+):([^\r\n]*)') do
  local kind, db, key = string.match(value, '^kind=(%w+),db=(%d+),.*name=(.*)$')
  if kind then
    if kind == 'answers' and db == '0' and #caches < MOST then caches[#caches + 1] = key end
  elseif string.match(value, '^%d+$') then
    add('server_' .. name .. (GAUGES[name] and '' or '_total'), value)
  end
end

for _, key in ipairs(caches) do
  local stats = redis.pcall('LLMCACHE.STATS', raw(key))
  local held = redis.pcall('LLMCACHE.INFO', raw(key))
  if not stats.err and not held.err then
    stats, held = map(stats), map(held)
    local cache = ';cache=' .. decoded(key)
    add('lookups_total', stats.lookups, cache)
    add('hits_total', stats.hits_exact, cache .. ';tier=exact')
    add('hits_total', stats.hits_semantic, cache .. ';tier=semantic')
    for field, count in pairs(stats) do
      local reason = string.match(field, '^misses_(.*)$')
      if reason then add('misses_total', count, cache .. ';reason=' .. reason) end
    end
    add('saved_seconds_total', stats.ms_saved / 1000, cache)
    add('leads_total', stats.lead, cache)
    add('breaker_open_total', stats.open, cache)
    for _, field in ipairs({'busy', 'coalesced', 'stale', 'negative', 'stores', 'replaced', 'evicted', 'failures'}) do
      add(field .. '_total', stats[field], cache)
    end
    add('saved_tokens_total', stats.tokens_saved, cache)
    add('saved_usd_total', stats.usd_saved, cache)
    add('near_misses', stats.near_misses, cache)
    add('entries', held.entries, cache)
    add('bytes', held.bytes, cache)
    add('leases_open', held.leases, cache)
    add('waiters', held.waiters, cache)
    add('threshold', held.threshold, cache)
  end
end
return out
