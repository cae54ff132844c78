-- Returns, for a file system and each one below it, its snapshots and the user
-- properties with a prefix that are set there, including received ones, without
-- inherited ones. A value that is not printable ASCII is returned as "?": otherwise
-- the command would print nothing, and one foreign value would hide everything.
args = ...
argv = args["argv"]

local root, prefix = argv[1], argv[2]
local found = {}

local function visit(name)
    local props = {}
    for prop, value, source in zfs.list.user_properties(name) do
        if (source == name or source == "$recvd") and string.sub(prop, 1, #prefix) == prefix then
            if string.find(value, "[^ -~]") then value = "?" end
            props[prop] = value
        end
    end
    local snapshots = {}
    for snapshot in zfs.list.snapshots(name) do
        snapshots[#snapshots + 1] = snapshot
    end
    found[name] = { props = props, snapshots = snapshots }
    for child in zfs.list.children(name) do
        visit(child)
    end
end

visit(root)
return found
