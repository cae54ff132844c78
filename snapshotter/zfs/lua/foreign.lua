-- Destroys all snapshots of a file system except one. The words are the short name
-- of that one and the file system. Returns the first error and its snapshot.
args = ...
local own, name = args["argv"][1], args["argv"][2]

local first = { errno = 0, name = "" }
if not zfs.exists(name) then return first end

local foreign = {}
for snapshot in zfs.list.snapshots(name) do
    if snapshot ~= name .. "@" .. own then foreign[#foreign + 1] = snapshot end
end
for _, snapshot in ipairs(foreign) do
    local err = zfs.check.destroy(snapshot)
    if err == 0 then err = zfs.sync.destroy(snapshot) end
    if err ~= 0 and first.errno == 0 then first = { errno = err, name = snapshot } end
end
return first
