-- Destroys file systems, each with its own snapshot and independent of the
-- others. The first word is the short name of the snapshot that may go with
-- its file system, the second begins those of snapshots that somebody of ours
-- looked at, which go too; any other snapshot is somebody else's and keeps it.
-- Answers a table from the name of each that is still there to its errno;
-- 1001 stands for clones, 1002 for foreign snapshots; 2000 is added where its own
-- snapshot is gone.
args = ...
argv = args["argv"]

local own, temporary = argv[1], argv[2]
local HAS_CLONES, FOREIGN, HALF = 1001, 1002, 2000

local function destroy(name)
    -- Nearly always this is all: a clone without snapshots, and in use by nobody.
    local err = zfs.sync.destroy(name)
    if err == 0 or err == 2 then return 0 end
    local snapshot, written
    local passing = {}
    for s in zfs.list.snapshots(name) do
        local short = string.sub(s, #name + 2)
        if short == own then
            snapshot = s
        elseif string.sub(short, 1, #temporary) == temporary then
            passing[#passing + 1] = s
        else
            return FOREIGN
        end
    end
    for _, s in ipairs(passing) do
        err = zfs.sync.destroy(s) -- busy while it is looked at
        if err ~= 0 then return err end
    end
    if not snapshot and #passing > 0 then return zfs.sync.destroy(name) end
    if snapshot then
        for clone in zfs.list.clones(snapshot) do return HAS_CLONES end
        written = zfs.get_prop(name, "written")
        err = zfs.sync.destroy(snapshot)
        if err ~= 0 then return err end
        err = zfs.sync.destroy(name)
    end
    -- Whether the file system itself is mounted cannot be asked while it has a
    -- snapshot: that is busy too. Take it again, or a template would be half a
    -- template. In a full pool it will be, and where whoever has it mounted wrote
    -- into it: then it is not what it was.
    if err ~= 0 and snapshot and (written ~= 0 or zfs.sync.snapshot(snapshot) ~= 0) then return HALF + err end
    return err
end

local left = {}
for i = 3, #argv do
    local err = destroy(argv[i])
    if err ~= 0 then left[argv[i]] = err end
end
return left
