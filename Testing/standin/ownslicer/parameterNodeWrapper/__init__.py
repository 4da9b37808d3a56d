"""`slicer.parameterNodeWrapper`, small: typed access to a module's parameter node, bound to its panel.

Values are stored under the names and in the form that Slicer uses, so a saved scene opens in Slicer.
Not here: parameter packs, and values of type list, dict, tuple or Any.
"""

from .annotations import (
    Choice,
    Decimals,
    Default,
    Exclude,
    Maximum,
    Minimum,
    SingleStep,
    Validator,
    WithinRange,
)
from .connectors import GuiConnector, createGuiConnector, parameterNodeGuiConnector
from .serializers import Serializer
from .wrapper import SlicerParameterNamePropertyName, isParameterNodeWrapper, parameterNodeWrapper

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "GuiConnector",
    "Maximum",
    "Minimum",
    "Serializer",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "createGuiConnector",
    "isParameterNodeWrapper",
    "parameterNodeGuiConnector",
    "parameterNodeWrapper",
]
