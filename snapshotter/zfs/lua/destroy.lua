-- Destroys file systems, each with its own snapshot and independent of the
-- others. The first word is the short name of the snapshot that may go with
-- its file system; any other snapshot is somebody else's and keeps it.
-- Answers a table from the name of each that is still there to its errno;
-- 1001 stands for clones, 1002 for foreign snapshots.
args = ...
argv = args["argv"]

local own = argv[1]
local HAS_CLONES, FOREIGN = 1001, 1002

local function destroy(name)
    -- Nearly always this is all: a clone without snapshots, and in use by nobody.
    local err = zfs.sync.destroy(name)
    if err == 0 or err == 2 then return 0 end
    local snapshot
    for s in zfs.list.snapshots(name) do
        if s == name .. "@" .. own then snapshot = s else return FOREIGN end
    end
    if snapshot then
        for clone in zfs.list.clones(snapshot) do return HAS_CLONES end
        err = zfs.sync.destroy(snapshot)
        if err ~= 0 then return err end
        err = zfs.sync.destroy(name)
    end
    -- Whether the file system itself is mounted cannot be asked while it has a
    -- snapshot: that is busy too. Its content has not changed since; take it
    -- again, or a template would be half a template.
    if err ~= 0 and snapshot then zfs.sync.snapshot(snapshot) end
    return err
end

local left = {}
for i = 2, #argv do
    local err = destroy(argv[i])
    if err ~= 0 then left[argv[i]] = err end
end
return left
