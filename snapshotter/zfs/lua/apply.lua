-- Carries out a list of steps, five words each: verb, name, origin, property,
-- value. Every step is checked before it is taken; the first that fails stops
-- the program, and what was made before it is taken back, last first, so that
-- the caller sees all of the list or none of it.
args = ...
argv = args["argv"]

local undo = {}

local function take_back()
    for i = #undo, 1, -1 do
        undo[i]()
    end
end

local function run(verb, name, origin, prop, value)
    local err
    if verb == "idle" then
        if not zfs.exists(name) then return 2 end
        -- Whatever keeps it from being destroyed: most likely a mount.
        err = zfs.check.destroy(name)
        if err ~= 0 then err = 16 end
    elseif verb == "snapshot" then
        err = zfs.check.snapshot(name)
        if err == 0 then err = zfs.sync.snapshot(name) end
        if err == 0 then undo[#undo + 1] = function() zfs.sync.destroy(name) end end
    elseif verb == "clone" then
        err = zfs.check.clone(origin, name)
        if err == 0 then err = zfs.sync.clone(origin, name) end
        if err == 0 then undo[#undo + 1] = function() zfs.sync.destroy(name) end end
    elseif verb == "promote" then
        err = zfs.check.promote(name)
        if err == 0 then err = zfs.sync.promote(name) end
        if err == 0 then undo[#undo + 1] = function() zfs.sync.promote(origin) end end
    elseif verb == "set" or verb == "inherit" then
        if not zfs.exists(name) then return 2 end
        local before, source = zfs.get_prop(name, prop)
        if source ~= name then before = nil end
        if verb == "set" then
            err = zfs.check.set_prop(name, prop, value)
            if err == 0 then err = zfs.sync.set_prop(name, prop, value) end
        elseif before == nil then
            return 0 -- is not set here
        else
            err = zfs.check.inherit(name, prop)
            if err == 0 then err = zfs.sync.inherit(name, prop) end
        end
        if err == 0 then
            undo[#undo + 1] = function()
                if before ~= nil then
                    zfs.sync.set_prop(name, prop, before)
                else
                    zfs.sync.inherit(name, prop)
                end
            end
        end
    else
        err = 22
    end
    return err
end

for i = 1, #argv, 5 do
    local verb, name = argv[i], argv[i + 1]
    local err = run(verb, name, argv[i + 2], argv[i + 3], argv[i + 4])
    if err ~= 0 then
        take_back()
        return { errno = err, op = verb, name = name }
    end
end
return { errno = 0 }
