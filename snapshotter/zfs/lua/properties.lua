-- Answers, for a file system and each one below it, the user properties with a
-- prefix that are set there: those a receive brought count, inherited ones do
-- not. A value that is not printable ASCII comes back as "?": the command
-- would print nothing at all, and one stranger's value would hide everything.
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
    found[name] = props
    for child in zfs.list.children(name) do
        visit(child)
    end
end

visit(root)
return found
