-- Destroys file systems, each with its own snapshot and independently of the
-- others. The first word is the short name of the snapshot that is destroyed with
-- its file system, the second is the prefix of temporary snapshots, which are
-- destroyed too. A file system with any other snapshot is not destroyed. Returns a
-- table from the name of each file system that still exists to an errno, or 1001
-- for clones, or 1002 for foreign snapshots. 2000 is added if its own snapshot was
-- destroyed.
args = ...
argv = args["argv"]

local own, temporary = argv[1], argv[2]
local HAS_CLONES, FOREIGN, SNAPSHOT_LOST = 1001, 1002, 2000

local function destroy(name)
    -- Nearly always this is enough: a clone without snapshots that is not in use.
    local err = zfs.sync.destroy(name)
    if err == 0 or err == 2 then return 0 end
    local snapshot, written
    local temporaries = {}
    for s in zfs.list.snapshots(name) do
        local short = string.sub(s, #name + 2)
        if short == own then
            snapshot = s
        elseif string.sub(short, 1, #temporary) == temporary then
            temporaries[#temporaries + 1] = s
        else
            return FOREIGN
        end
    end
    for _, s in ipairs(temporaries) do
        err = zfs.sync.destroy(s) -- busy while it is mounted
        if err ~= 0 then return err end
    end
    if not snapshot and #temporaries > 0 then return zfs.sync.destroy(name) end
    if snapshot then
        for clone in zfs.list.clones(snapshot) do return HAS_CLONES end
        written = zfs.get_prop(name, "written")
        err = zfs.sync.destroy(snapshot)
        if err ~= 0 then return err end
        err = zfs.sync.destroy(name)
    end
    -- As long as the file system has a snapshot, ZFS does not report whether it is
    -- mounted, because both are busy. If it is, take the snapshot again. That fails
    -- in a full pool, and is wrong if the file system was written to.
    if err ~= 0 and snapshot and (written ~= 0 or zfs.sync.snapshot(snapshot) ~= 0) then return SNAPSHOT_LOST + err end
    return err
end

local left = {}
for i = 3, #argv do
    local err = destroy(argv[i])
    if err ~= 0 then left[argv[i]] = err end
end
return left
