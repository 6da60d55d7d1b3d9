-- Sends the requests of a file in turn, and prints what came of them as one line of JSON.
-- Arguments: the file, whose requests are separated by NUL, and the status that every answer must have.

local threads = {}
local requests = {}
local position = 0

-- Each thread has a state of its own, of which only globals can be read at the end.
expected = 200
unexpected = 0

function setup(thread)
    threads[#threads + 1] = thread
end

function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    for request in file:read("*a"):gmatch("[^%z]+") do
        requests[#requests + 1] = request
    end
    file:close()
    expected = tonumber(arguments[2])
    -- wrk itself counts whatever is not a success, and looks into no answer for that.
    if expected ~= 200 then
        response = function(status)
            if status ~= expected then
                unexpected = unexpected + 1
            end
        end
    end
end

function request()
    position = position % #requests + 1
    return requests[position]
end

function done(summary, latency)
    local wrong = 0
    for _, thread in ipairs(threads) do
        wrong = wrong + thread:get("unexpected")
    end
    if threads[1]:get("expected") == 200 then
        wrong = summary.errors.status
    end
    local broken = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
    print(string.format(
        '{"completed": %d, "microseconds": %d, "p50": %d, "p99": %d, "wrong": %d, "broken": %d}',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), wrong, broken
    ))
end
