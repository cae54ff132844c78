-- Carries out a list of steps of five words each: verb, name, origin, property,
-- value. Each zfs.sync call checks its arguments first and returns an errno. The
-- first error stops the program and rolls back the steps before it, last first,
-- so that all of the list is done or none of it.
args = ...
argv = args["argv"]

local undo = {}
-- File systems that this list creates. Their properties need no undo, because the
-- rollback destroys them. That avoids reading them, which is the main cost.
local created = {}

local function roll_back()
    for i = #undo, 1, -1 do
        undo[i]()
    end
end

-- Returns a function that restores a property, or an errno.
local function restore(name, prop)
    if not zfs.exists(name) then return nil, 2 end
    local before, source = zfs.get_prop(name, prop)
    if source ~= name then
        return function() zfs.sync.inherit(name, prop) end, 0, false
    end
    return function() zfs.sync.set_prop(name, prop, before) end, 0, true
end

-- last: no step follows that could fail, so no undo is needed.
local function change(verb, name, prop, value, last)
    local undo_step, err, is_set
    if not created[name] and not (last and verb == "set") then
        undo_step, err, is_set = restore(name, prop)
        if err ~= 0 then return err end
        if verb == "inherit" and not is_set then return 0 end
    end
    if verb == "set" then
        err = zfs.sync.set_prop(name, prop, value)
    else
        err = zfs.sync.inherit(name, prop)
    end
    if err == 0 then undo[#undo + 1] = undo_step end
    return err
end

local function run(verb, name, origin, prop, value, last)
    if verb == "set" or verb == "inherit" then return change(verb, name, prop, value, last) end
    local err, undo_step
    if verb == "raise" then
        local before, source = zfs.get_prop(name, prop)
        if source == name and before >= value then return 0 end
        return zfs.sync.set_prop(name, prop, value)
    end
    if verb == "snapshot" then
        err = zfs.sync.snapshot(name)
        undo_step = function() zfs.sync.destroy(name) end
    elseif verb == "clone" then
        err = zfs.sync.clone(origin, name)
        undo_step = function() zfs.sync.destroy(name) end
        if err == 0 then created[name] = true end
    elseif verb == "promote" then
        err = zfs.sync.promote(name)
        undo_step = function() zfs.sync.promote(origin) end
    else
        err = 22
    end
    if err == 0 then undo[#undo + 1] = undo_step end
    return err
end

for i = 1, #argv, 5 do
    local verb, name = argv[i], argv[i + 1]
    local err = run(verb, name, argv[i + 2], argv[i + 3], argv[i + 4], i + 5 > #argv)
    if err ~= 0 then
        roll_back()
        return { errno = err, op = verb, name = name }
    end
end
return { errno = 0 }
